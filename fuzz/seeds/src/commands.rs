//! Seeds of `commands`: every command, every way to write a string, and what is refused.

use super::Seed;

pub fn seeds() -> Vec<Seed> {
    let deep = |levels: usize| format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let many: Vec<String> = (0..1_025).map(|room| format!("\"{room}\"")).collect();
    let texts = [
        ("room-msg", r#"{"type":"room_msg","roomId":"den","content":{"a":[1,2.5e-3,null]},"id":7}"#.to_owned()),
        ("private-msg", r#"{"type":"private_msg","toUser":"bob","content":"hi","id":"x"}"#.into()),
        ("private", r#"{"type":"private","to":"2e147c03-0401-43b7-b6f9-4da14b17646f","data":[true]}"#.into()),
        ("broadcast-content", r#"{"type":"broadcast","content":1e400}"#.into()),
        ("broadcast-data", r#"{"type":"broadcast","data":123456789012345678901234567890}"#.into()),
        ("join-one", r#"{"type":"join_room","roomId":"den","id":1}"#.into()),
        ("join-many", r#"{"type":"join_room","roomIds":["a","b","a"],"id":1}"#.into()),
        ("join-since", r#"{"type":"join_room","roomId":"r","since":{"epoch":"e","offset":7}}"#.into()),
        ("join-last", r#"{"type":"join_room","roomIds":[],"last":18446744073709551615}"#.into()),
        ("update", r#"{"type":"room_msg","roomId":"px","item":"AAPL","content":{"bid":1},"version":7,"id":1}"#.into()),
        ("removal", r#"{"type":"room_msg","roomId":"px","item":"AAPL","remove":true,"key":"k"}"#.into()),
        (
            "updates",
            r#"{"type":"room_msgs","roomId":"px","updates":[{"item":"a","content":1},{"item":"b","remove":true,"version":-1}],"replace":true}"#
                .into(),
        ),
        ("bad-updates", r#"{"type":"room_msgs","roomId":"px","updates":[{"item":"a","content":1},{"item":"a*"},7]}"#.into()),
        (
            "subscription",
            r#"{"type":"join_room","roomId":"px","mode":"latest","interval":100,"items":["a","fx.*"],"snapshot":false,"id":1}"#.into(),
        ),
        ("tune", r#"{"type":"tune","roomId":"px","mode":"all","items":["*"],"id":1}"#.into()),
        ("leave", r#"{"type":"leave_room","roomId":"den","id":-0}"#.into()),
        ("presence", "{\"type\" :\t\"presence\" ,\r\n\"roomId\":\"größe\"}".into()),
        ("ping", r#" {"type":"ping"} "#.into()),
        ("escapes", r#"{"\u0074ype":"r\u006fom_msg","roomId":"\ud83d\ude00\n\/","content":"\ud800"}"#.into()),
        ("lone-surrogate-name", r#"{"\ud800":1,"type":"presence","roomId":"\udc00"}"#.into()),
        ("twice", r#"{"type":"ping","type":"presence","roomId":1,"roomId":"x","id":1,"id":2}"#.into()),
        ("both", r#"{"type":"broadcast","content":1,"data":2,"id":3}"#.into()),
        ("bad-id", r#"{"type":"ping","id":{}}"#.into()),
        ("long-id", format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(1_023))),
        ("long-room", format!(r#"{{"type":"presence","roomId":"{}"}}"#, "x".repeat(256))),
        ("many-rooms", format!(r#"{{"type":"join_room","roomIds":[{}]}}"#, many.join(","))),
        ("deep", deep(128)),
        ("too-deep", deep(129)),
        ("unfinished", r#"{"type":"ping","id":7"#.into()),
    ];
    texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}
