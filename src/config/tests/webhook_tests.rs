//! Receivers of events: the same from file, environment and flag, and what each mistake is answered.

use super::*;

fn webhook_flags(webhooks: &[&str]) -> Sources {
    let list_flags = webhooks.iter().map(|webhook| (&WEBHOOK, (*webhook).to_owned())).collect();
    Sources { list_flags, ..Sources::default() }
}

#[test]
fn a_webhook_is_the_same_from_everywhere() {
    let text = "[[webhook]]\nurl = \"https://app.example.com/hook\"\nsecret_file = \"/s\"\nevents = [\"user_online\"]\n\
                rooms = [\"a.*\"]\ntimeout = \"2s\"\nconcurrency = 1\n";
    let from_file = loaded(&file(text)).webhook;
    let line = "url=https://app.example.com/hook,secret_file=/s,events=user_online,rooms=a.*,timeout=2s,concurrency=1";
    let same = |mut webhooks: Vec<Webhook>| {
        webhooks.iter_mut().for_each(|webhook| webhook.place = String::new());
        webhooks
    };
    let from_file = same(from_file);
    assert_eq!(same(loaded(&env(&[("FANFARE_WEBHOOK", line)])).webhook), from_file);
    assert_eq!(same(loaded(&webhook_flags(&[line])).webhook), from_file);
    let [webhook] = &from_file[..] else { panic!("{from_file:?}") };
    assert_eq!(
        (webhook.events.clone(), webhook.timeout, webhook.sockets_max()),
        (vec!["user_online"], Duration::from_secs(2), 2)
    );
    assert!(webhook.is_tls() && webhook.rooms.len() == 1 && webhook.ca.is_empty());
    let short = loaded(&webhook_flags(&["url=http://127.0.0.1:1/,secret_file=/s"])).webhook;
    assert_eq!((short[0].events.len(), short[0].concurrency, short[0].is_tls()), (4, 4, false));
    assert_eq!(short[0].rooms[0].to_string(), "*");
}

#[test]
fn a_wrong_webhook_is_told_without_its_secret() {
    for (webhook, message) in [
        ("secret_file=/s", "the webhook says not where its receiver is; add url"),
        ("url=https://h/", "there is no secret in it, so that its receiver could believe nothing; add secret_file"),
        ("url=https://h/,secret_file=/s,events=", "the webhook is sent nothing; add events, or leave them out for all"),
        (
            "url=https://h/,secret=hunter2",
            "everybody on this machine can read a secret in a flag; give secret_file, or the secret in FANFARE_WEBHOOK or the \
             file",
        ),
    ] {
        assert_eq!(problems(&webhook_flags(&[webhook])), [format!("--webhook: {message}")], "{webhook}");
    }
    let both = "[[webhook]]\nurl = \"https://h/\"\nsecret = \"hunter2\"\nsecret_file = \"/s\"\n";
    assert_eq!(
        problems(&file(both)),
        ["f.toml:1:1: webhook: the secret stands in it twice; keep secret or secret_file"]
    );
    let good = "[[webhook]]\nurl = \"https://h/\"\nsecret = \"hunter2\"\n";
    let (config, effective) = Config::load(&file(good)).expect("it is good");
    assert!(!format!("{config:?}{effective}").contains("hunter2"), "{effective}");
    let many = vec!["url=https://h/,secret_file=/s"; crate::limits::WEBHOOKS_MAX + 1];
    assert_eq!(problems(&webhook_flags(&many)), ["--webhook: 17 webhooks are too many; write at most 16"]);
    let kept_twice = flags(&[("webhooks.directory", "/d"), ("redis.url", "redis://h/")]);
    let message = "with redis.url Redis keeps the events that are not delivered; leave this out";
    assert_eq!(problems(&kept_twice), [format!("--webhooks.directory: {message}")]);
}
