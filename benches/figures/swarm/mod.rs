//! Owns a swarm of light Locals: each speaks the session stream of the tier link and nothing else. Ten thousand fit
//! beside a Global on two cores. They hold names (told by SUMMARY, as after a reconnect), acknowledge invalidations,
//! renew their leases as a Local does, and reckon `valid_until` as it does: from when the KEEP was made.
//!
//! Used by the figures and by the tests of real processes.

pub mod wire;

use rustix::net::sockopt::set_socket_linger;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use wire::{Ack, Call, DownFrame, Epoch, Hello, Keep, Listed, Summary, Up, UpFrame};

/// What all of a swarm have seen.
pub struct Tally {
    began: Instant,
    /// Sessions with a stream on which a LEASE has come.
    pub attached: AtomicUsize,
    /// Registrations of names, in all.
    pub held: AtomicUsize,
    pub refused: AtomicUsize,
    /// Invalidations received, and when the last was, in ns since the beginning.
    pub told: AtomicUsize,
    last_told: AtomicU64,
    pub leases: AtomicU64,
    /// Streams that ended without having been told to.
    pub lost: AtomicUsize,
    /// Connections that were refused or not answered.
    pub failed: AtomicUsize,
    /// Leases that ran out before they were renewed, for each session.
    pub lapsed: Vec<AtomicUsize>,
    /// The least that was left of a lease when it was renewed, in ms, while the session was not cut.
    pub narrowest_ms: AtomicU64,
}

impl Tally {
    /// When the last invalidation came.
    pub fn last_told(&self) -> Instant {
        self.began + Duration::from_nanos(self.last_told.load(Relaxed))
    }

    fn hear(&self) {
        self.last_told.fetch_max(self.began.elapsed().as_nanos() as u64, Relaxed);
        self.told.fetch_add(1, Relaxed);
    }
}

enum Order {
    /// Hold names, packed, that are bound at a revision each.
    Hold(Vec<(Vec<u8>, u64)>),
    /// RST, and connect again at once.
    Cut,
}

/// Light Locals, until it is dropped.
pub struct Swarm {
    pub tally: Arc<Tally>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    leave: Arc<AtomicBool>,
}

impl Swarm {
    /// `n` sessions at Global, all of them begun at once; gives them when each has its lease.
    pub async fn attach(global: SocketAddr, n: usize) -> Self {
        let tally = Arc::new(Tally {
            began: Instant::now(),
            attached: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            last_told: AtomicU64::new(0),
            leases: AtomicU64::new(0),
            lost: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            lapsed: (0..n).map(|_| AtomicUsize::new(0)).collect(),
            narrowest_ms: AtomicU64::new(u64::MAX),
        });
        let leave = Arc::new(AtomicBool::new(false));
        let mut orders = Vec::with_capacity(n);
        for me in 0..n {
            let (order, orders_of) = mpsc::unbounded_channel();
            orders.push(order);
            let light = Light::new(me, tally.clone());
            tokio::spawn(light.live(global, orders_of));
        }
        let swarm = Self { tally, orders, leave };
        swarm.all_attached().await;
        swarm
    }

    /// Waits until every session has its lease.
    pub async fn all_attached(&self) {
        let n = self.orders.len();
        self.until("a session for each", |tally| tally.attached.load(Relaxed) == n).await;
    }

    /// Has `who` hold `names`, at most 512, packed and each with the revision at which it is bound.
    pub async fn hold(&self, who: Range<usize>, names: &[(Vec<u8>, u64)]) {
        let (due, before) = (who.len() * names.len(), self.tally.held.load(Relaxed));
        for order in &self.orders[who] {
            _ = order.send(Order::Hold(names.to_vec()));
        }
        self.until("it is held", |tally| tally.held.load(Relaxed) >= before + due).await;
    }

    /// Cuts `who`, each with a RST; they connect again at once.
    pub fn cut(&self, who: Range<usize>) {
        self.orders[who].iter().for_each(|order| _ = order.send(Order::Cut));
    }

    /// Waits for what must come.
    pub async fn until(&self, what: &str, there: impl Fn(&Tally) -> bool) {
        let began = Instant::now();
        while !there(&self.tally) {
            let t = &self.tally;
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "waiting in vain: {what}: {} attached, {} held, {} refused, {} lost, {} failed, {} told",
                t.attached.load(Relaxed),
                t.held.load(Relaxed),
                t.refused.load(Relaxed),
                t.lost.load(Relaxed),
                t.failed.load(Relaxed),
                t.told.load(Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // Who has no more orders to expect leaves.
        self.leave.store(true, Relaxed);
        self.orders.clear();
    }
}

/// Why a stream ended.
enum End {
    Lost,
    Cut,
    Left,
}

struct Light {
    me: usize,
    tally: Arc<Tally>,
    dice: u64,
    epoch: Option<Epoch>,
    lease: Duration,
    valid_until: Option<Instant>,
    /// KEEPs not answered, and when each was made.
    keeps: VecDeque<(u64, Instant)>,
    next_keep: u64,
    acked: u64,
    batches: u64,
    /// Names to be listed, by the batch that lists them.
    held: Vec<(Vec<u8>, u64)>,
    attached: bool,
    cut: bool,
}

impl Light {
    fn new(me: usize, tally: Arc<Tally>) -> Self {
        Self {
            me,
            tally,
            dice: (me as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            epoch: None,
            lease: Duration::from_secs(2),
            valid_until: None,
            keeps: VecDeque::new(),
            next_keep: 1,
            acked: 0,
            batches: 0,
            held: Vec::new(),
            attached: false,
            cut: false,
        }
    }

    /// From half to all, as a Local's jitter.
    fn jitter(&mut self, delay: Duration) -> Duration {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        delay / 2 + delay / 2 * (self.dice % 1024) as u32 / 1024
    }

    async fn live(mut self, global: SocketAddr, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut pause = Duration::from_millis(50);
        loop {
            self.keeps.clear();
            let connected = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(global)).await;
            let end = if let Ok(Ok(stream)) = connected {
                self.session(stream, &mut orders).await
            } else {
                self.tally.failed.fetch_add(1, Relaxed);
                End::Lost
            };
            if std::mem::replace(&mut self.attached, false) {
                self.tally.attached.fetch_sub(1, Relaxed);
                pause = Duration::from_millis(50);
            }
            match end {
                End::Left => return,
                End::Cut => self.cut = true,
                End::Lost => {
                    self.tally.lost.fetch_add(1, Relaxed);
                    let wait = self.jitter(pause);
                    pause = (pause * 2).min(Duration::from_secs(2));
                    tokio::time::sleep(wait).await;
                }
            }
            if orders.is_closed() {
                return;
            }
        }
    }

    async fn session(&mut self, mut stream: TcpStream, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        if stream.set_nodelay(true).is_err() {
            return End::Lost;
        }
        let mut call = Call::begun();
        self.keeps.push_back((0, Instant::now()));
        call.say(&Up { epoch: None, frame: Some(UpFrame::Hello(self.hello())) });
        let mut buffer = [0_u8; 2048];
        let mut keep_at = tokio::time::Instant::now() + Duration::from_secs(5);
        loop {
            if !call.out.is_empty() {
                if stream.write_all(&call.out).await.is_err() {
                    return End::Lost;
                }
                call.out.clear();
            }
            tokio::select! {
                biased;
                read = stream.read(&mut buffer) => {
                    let Ok(len @ 1..) = read else { return End::Lost };
                    let Some(frames) = call.take(&buffer[..len]) else { return End::Lost };
                    let acked = self.acked;
                    for frame in frames {
                        if self.heard(frame, &mut call) {
                            keep_at = tokio::time::Instant::now() + self.jitter(self.lease / 3);
                        }
                    }
                    if self.acked > acked {
                        self.say(&mut call, UpFrame::Ack(Ack { seq: self.acked }));
                    }
                }
                order = orders.recv() => match order {
                    None => return End::Left,
                    Some(Order::Cut) => {
                        let _ = set_socket_linger(&stream, Some(Duration::ZERO));
                        return End::Cut;
                    }
                    Some(Order::Hold(names)) => {
                        self.held.extend(names);
                        if self.attached {
                            self.list(&mut call);
                        }
                    }
                },
                () = tokio::time::sleep_until(keep_at) => {
                    let n = self.next_keep;
                    self.next_keep += 1;
                    self.keeps.push_back((n, Instant::now()));
                    if self.keeps.len() > 16 {
                        self.keeps.pop_front();
                    }
                    self.say(&mut call, UpFrame::Keep(Keep { n, acked: self.acked }));
                    keep_at = tokio::time::Instant::now() + self.jitter(self.lease / 3);
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            version: 2,
            local_id: (self.me as u128 + 1).to_be_bytes().to_vec(),
            incarnation: 1,
            history: self.epoch.as_ref().map_or_else(|| vec![0; 16], |epoch| epoch.history.clone()),
            last_epoch: self.epoch.clone(),
            label: format!("light-{}", self.me),
        }
    }

    fn say(&self, call: &mut Call, frame: UpFrame) {
        call.say(&Up { epoch: self.epoch.clone(), frame: Some(frame) });
    }

    /// Lists what is to be held.
    fn list(&mut self, call: &mut Call) {
        self.batches += 1;
        let listed = |(name, bind_rev): &(Vec<u8>, u64)| Listed {
            name: name.clone(),
            bind_rev: *bind_rev,
            reg_seq: self.batches,
        };
        let names = self.held.iter().map(listed).collect();
        self.say(call, UpFrame::Summary(Summary { batch: self.batches, names, last: true }));
    }

    /// True if the lease was extended.
    fn heard(&mut self, down: wire::Down, call: &mut Call) -> bool {
        match down.frame {
            Some(DownFrame::Welcome(welcome)) => {
                self.epoch = down.epoch;
                self.lease = Duration::from_micros(welcome.lease_us);
                self.acked = 0;
                self.list(call);
            }
            Some(DownFrame::Inv(inv)) => {
                self.acked = inv.seq;
                self.held.clear();
                self.tally.hear();
            }
            Some(DownFrame::Lease(lease)) => return self.extend(&lease),
            Some(DownFrame::Summarized(answer)) => {
                self.tally.refused.fetch_add(answer.refused.len(), Relaxed);
                if answer.batch == self.batches {
                    let held = std::mem::take(&mut self.held);
                    self.tally.held.fetch_add(held.len() - answer.refused.len().min(held.len()), Relaxed);
                }
            }
            None => {}
        }
        false
    }

    fn extend(&mut self, lease: &wire::Lease) -> bool {
        let Some(at) = self.keeps.iter().position(|(n, _)| *n == lease.n) else { return false };
        let (now, (_, made)) = (Instant::now(), self.keeps[at]);
        self.keeps.drain(..=at);
        self.lease = Duration::from_micros(lease.lease_us);
        self.tally.leases.fetch_add(1, Relaxed);
        if let Some(valid) = self.valid_until.filter(|_| !std::mem::take(&mut self.cut)) {
            match valid.checked_duration_since(now) {
                Some(left) => _ = self.tally.narrowest_ms.fetch_min(left.as_millis() as u64, Relaxed),
                None => _ = self.tally.lapsed[self.me].fetch_add(1, Relaxed),
            }
        }
        self.valid_until = Some(made + self.lease);
        if !std::mem::replace(&mut self.attached, true) {
            self.tally.attached.fetch_add(1, Relaxed);
        }
        true
    }
}
