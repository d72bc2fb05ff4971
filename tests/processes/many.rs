//! Many sessions at one Global, in a process of its own, and half of them cut off at once, again and again.
//!
//! The Locals are light ones (`swarm`): they speak the session stream, reckon their leases, and hold names. Those that
//! are cut come back at once, all together; the others must not notice: no lease of theirs may lapse, no stream of
//! theirs may end. In the end everybody leaves, and Global's memory is what it was.

use crate::rig::{Global, fact, name, until};
use crate::swarm::Swarm;
use dstore_client::Address;
use dstore_shared::SetOutcome;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Memory that Global may have more of, after all rounds and after all have left, than after half of the rounds. The
/// allocator (glibc) keeps what a crowd and its return needed, and uses it again: it must not need more each time.
const MARGIN_KIB: usize = 24 << 10;

struct Crowd {
    global: Global,
    swarm: Swarm,
    n: usize,
}

impl Crowd {
    async fn attach(global: Global, n: usize) -> Self {
        let began = Instant::now();
        let swarm = Swarm::attach(at(&global), n).await;
        println!("{n} sessions attached in {:.2?}", began.elapsed());
        Self { global, swarm, n }
    }

    /// Half of the sessions are cut and come back, while a name that both halves hold is deleted. Others hold it each
    /// time: who kept a DEL waiting is registered nowhere for a while, and longer each time.
    async fn cut_half(&self, round: usize) -> Duration {
        let key = format!("held-{round}");
        let client = self.global.client();
        let set = client.set(&name(&key), format!("value {round}")).await.expect("set");
        let SetOutcome::Stored(entry) = set.outcome else { panic!("it is new") };
        let holder = round % (self.n / 2);
        for holder in [holder, self.n - 1 - holder] {
            let held = (name(&key).packed().to_vec(), entry.bind_rev.0);
            self.swarm.hold(holder..holder + 1, &[held]).await;
        }
        let told = self.swarm.tally.told.load(Relaxed);
        let began = Instant::now();
        self.swarm.cut(0..self.n / 2);
        // The holder that was cut is waited for until it is back, which must be soon.
        assert!(client.delete(&[name(&key)]).await.expect("deleted").removed[0]);
        self.swarm.all_attached().await;
        assert!(self.swarm.tally.told.load(Relaxed) >= told + 2, "both holders were told");
        assert!(self.swarm.tally.last_told() > began);
        began.elapsed()
    }

    /// The sessions that were never cut.
    fn innocents_lapsed(&self) -> usize {
        self.swarm.tally.lapsed[self.n / 2..].iter().map(|lapsed| lapsed.load(Relaxed)).sum()
    }

    /// Everybody leaves without a word; Global forgets them when their leases have run out.
    async fn leave(self) -> Global {
        drop(self.swarm);
        until("no session is left", async || self.global.fact("sessions").await == 0).await;
        self.global
    }
}

fn at(global: &Global) -> SocketAddr {
    let Address::Tcp(at) = &global.daemon.at else { panic!("it listens on TCP") };
    at.parse().expect("an address")
}

async fn withstand(n: usize, rounds: usize, lease: &'static str) {
    let crowd = Crowd::attach(Global::start(&["--lease", lease]), n).await;
    let global = crowd.leave().await;
    let before = global.daemon.resident_kib();
    let crowd = Crowd::attach(global, n).await;
    let full = crowd.global.daemon.resident_kib();
    let (mut longest, mut halfway) = (Duration::ZERO, full);
    for round in 0..rounds {
        longest = longest.max(crowd.cut_half(round).await);
        assert_eq!(crowd.innocents_lapsed(), 0, "round {round}: a lease of a Local that was not cut lapsed");
        if round + 1 == rounds / 2 {
            halfway = crowd.global.daemon.resident_kib();
        }
        if (round + 1).is_multiple_of(10) {
            println!("{} rounds, {} KiB resident", round + 1, crowd.global.daemon.resident_kib());
        }
    }
    let tally = &crowd.swarm.tally;
    println!(
        "{rounds} times {} of {n} cut: all back after {longest:.2?} at most, {} renewals, {} ms left of the narrowest \
         lease, {} connections tried again",
        n / 2,
        tally.leases.load(Relaxed),
        tally.narrowest_ms.load(Relaxed),
        tally.failed.load(Relaxed) + tally.lost.load(Relaxed)
    );
    let status = crowd.global.client().status().await.expect("global answers");
    assert_eq!(fact(&status, "sessions"), n as u64, "who came back took its session over");
    let global = crowd.leave().await;
    let after = global.daemon.resident_kib();
    println!(
        "resident: {before} KiB after the first crowd, {full} with all, {halfway} after half of the rounds, {after} at the end"
    );
    assert!(
        after <= halfway + MARGIN_KIB,
        "{after} KiB at the end, {halfway} halfway: memory is not used again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mass_disconnect_costs_no_other_session_its_lease_and_memory_is_given_back() {
    // Longer than a busy machine withholds its processor from two debug builds.
    withstand(500, 10, "6s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "10,000 sessions, 100 disconnects: minutes, and a release build"]
async fn a_hundred_mass_disconnects_of_ten_thousand_sessions_cost_no_other_its_lease() {
    // At 2 s their renewals alone are most of a core.
    withstand(10_000, 100, "10s").await;
}
