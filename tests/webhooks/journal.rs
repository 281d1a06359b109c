//! A node alone that keeps its events in files.

use fanfare_testing::{Client, Server, free_addr, temporary_path};

use super::receiver::{Receiver, Reply};
use super::webhook;

#[test]
fn what_a_killed_node_had_not_delivered_its_next_run_delivers() {
    let receiver = Receiver::start();
    let folder = temporary_path("webhooks");
    let (addr, webhook) = (free_addr().to_string(), webhook(&receiver, ""));
    let folder_text = folder.to_str().expect("text");
    let settings = ["--listen", &addr, "--webhook", &webhook, "--webhooks.directory", folder_text];
    let mut server = Server::start(&settings);
    let mut heidi = Client::connect(&server, "heidi");
    heidi.join("den");
    receiver.until_all(&["user_online heidi", "room_occupied den"]);
    receiver.behave(|_| Reply::Status(500));
    heidi.join("attic");
    receiver.until_came(receiver.came().len() + 1);
    server.restart();
    receiver.behave(|_| Reply::Status(200));
    // One comes back, the rooms do not.
    let heidi = Client::connect(&server, "heidi");
    receiver.until("room_vacated den");
    receiver.until("room_vacated attic");
    heidi.leave();
    receiver.until_all(&[
        "user_online heidi",
        "room_occupied den",
        "room_occupied attic",
        "room_vacated den",
        "room_vacated attic",
        "user_offline heidi",
    ]);
    let events = receiver.events();
    let place = |event: &str| events.iter().position(|found| found == event).expect(event);
    assert!(place("room_occupied attic") < place("room_vacated attic"), "{events:?}");
    drop(server);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn the_next_process_waits_for_the_files_of_the_last_one() {
    let receiver = Receiver::start();
    let folder = temporary_path("webhooks");
    let (webhook, folder_text) = (webhook(&receiver, ""), folder.to_str().expect("text"));
    let settings = ["--webhook", &webhook, "--webhooks.directory", folder_text];
    let mut first = Server::start(&settings);
    let ivan = Client::connect(&first, "ivan");
    receiver.until("user_online ivan");
    let second = Server::start(&settings);
    let _judy = Client::connect(&second, "judy");
    let ivan_again = Client::connect(&second, "ivan");
    fanfare_testing::eventually("the second process says that it waits", || {
        second.log().contains("another process has it still")
    });
    first.kill();
    drop(ivan);
    receiver.until("user_online judy");
    ivan_again.leave();
    receiver.until_all(&["user_online ivan", "user_online judy", "user_offline ivan"]);
    drop(second);
    let _ = std::fs::remove_dir_all(folder);
}
