//! Many at once: one name that a hundred want, one value that fifty miss.

use crate::rig::{Global, Local, client, name, noise};
use dstore_client::{Client, Tier};
use dstore_shared::{BlobHash, SetOutcome};
use futures_util::future::join_all;

const CLIENTS: u64 = 100;

/// A hundred clients with connections of their own SET `key`, each with other bytes of length `len`.
async fn contend(key: &str, locals: [&Local; 2], global: &Global, value: impl Fn(u64) -> Vec<u8>) {
    let clients: Vec<Client> = (0..CLIENTS).map(|i| client(&locals[i as usize % 2].daemon.at)).collect();
    // Connected, so that they begin together.
    join_all(clients.iter().map(async |client| client.status().await.expect("answered"))).await;
    let sets = clients.iter().zip(0..).map(async |(client, i)| {
        let value = value(i);
        let hash = BlobHash::of(&value);
        (hash, client.set(&name(key), value).await.expect("answered").outcome)
    });
    let outcomes = join_all(sets).await;
    let mut won = outcomes.iter().filter(|(_, outcome)| matches!(outcome, SetOutcome::Stored(_)));
    let winner = won.next().expect("one wins").0;
    assert!(won.next().is_none(), "only one wins");
    for (hash, outcome) in &outcomes {
        let (SetOutcome::Stored(told) | SetOutcome::Unchanged(told) | SetOutcome::Occupied(told)) = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!(told.hash, winner, "who lost learns who won");
        // One who set the winner's bytes too is told that they are there.
        assert_eq!(matches!(outcome, SetOutcome::Occupied(_)), *hash != winner, "{outcome:?}");
    }
    for reader in [&locals[0].client, &locals[1].client, &global.client()] {
        let read = reader.get(&name(key)).await.expect("answered").expect("found");
        assert_eq!((BlobHash::of(&read.bytes), read.entry.hash), (winner, winner));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_clients_that_set_one_name_one_wins_and_all_learn_the_winner() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    contend("small", [&a, &b], &global, |i| vec![i as u8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_clients_that_set_eight_mebibytes_one_wins_and_all_learn_the_winner() {
    let global = Global::start(&[]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    contend("large", [&a, &b], &global, |i| noise(i, 8 << 20)).await;
    assert_eq!(global.staged(), 0);
    for local in [&a, &b] {
        let peak = local.daemon.memory_peak() >> 20;
        eprintln!("a Local took {peak} MiB at the most");
        // Its cache, the copies on their way there, and the frames of fifty uploads.
        assert!(peak < 450, "400 MiB passed through and were not gathered: {peak} MiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_misses_at_once_make_one_fetch() {
    const LARGE: usize = 2 << 20;
    // A lease that no slow machine outlasts: after a lapse those who came late share another fetch.
    let global = Global::start(&["--lease", "10s"]);
    let (a, b) = (Local::start(&global).await, Local::start(&global).await);
    for (key, value) in [("large", noise(1, LARGE)), ("small", noise(2, 60 << 10))] {
        a.client.set(&name(key), value.clone()).await.expect("set");
        let clients: Vec<Client> = (0..50).map(|_| client(&b.daemon.at)).collect();
        join_all(clients.iter().map(async |client| client.status().await.expect("answered"))).await;
        let came = b.wire.down();
        let read = join_all(clients.iter().map(async |client| client.get(&name(key)).await)).await;
        let came = b.wire.down() - came;
        let mut missed = 0;
        for found in read {
            let found = found.expect("answered").expect("found");
            assert!(found.bytes == value, "{key}");
            missed += u64::from(found.from.tier == Tier::Global);
        }
        assert!(missed > 1, "some missed together: {missed}");
        assert!((value.len()..value.len() * 3 / 2).contains(&(came as usize)), "{key}: {came} bytes came");
    }
}
