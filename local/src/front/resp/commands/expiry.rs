//! When names expire: EXPIRE, TTL and their kin. Times are Global's.

use super::{Answer, Answered, Call, Plan, Reply, Run, SYNTAX};
use crate::front::resp::plan::is_done;
use dstore_shared::{Entry, ExpireWhen, Expiry, Step, StepOutcome};
use std::time::Duration;

/// Milliseconds of a second.
const SECOND: i64 = 1000;

/// The option at `at` of SET and GETEX that says when the name expires; moves `at` to its last word. `None`: another.
pub fn option(call: &Call<'_>, at: &mut usize) -> Answered<Option<Expiry>> {
    let (args, word) = (call.args, *at);
    let is = |name| args.is(word, name);
    let (unit, absolute) = match () {
        () if is("ex") => (SECOND, false),
        () if is("px") => (1, false),
        () if is("exat") => (SECOND, true),
        () if is("pxat") => (1, true),
        () => return Ok(None),
    };
    *at += 1;
    if *at >= args.len() {
        return Err(SYNTAX);
    }
    let time = call.number(*at)?;
    if absolute { at_time(call, time, unit).map(Some) } else { after(call, time, unit).map(Some) }
}

/// After so many units.
pub fn after(call: &Call<'_>, time: i64, unit: i64) -> Answered<Expiry> {
    let ms = time.checked_mul(unit).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    ms.map(|ms| Expiry::In(Duration::from_millis(ms))).ok_or_else(|| invalid(call))
}

fn at_time(call: &Call<'_>, time: i64, unit: i64) -> Answered<Expiry> {
    let ms = time.checked_mul(unit).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    ms.map(Expiry::At).ok_or_else(|| invalid(call))
}

fn invalid(call: &Call<'_>) -> Reply {
    Reply::err(format!("invalid expire time in '{}' command", call.spec.name))
}

/// EXPIRE key seconds [NX | XX | GT | LT]
pub const EXPIRE: Run = Run::Steps(|call| expire(call, SECOND, false));
/// PEXPIRE key milliseconds [NX | XX | GT | LT]
pub const PEXPIRE: Run = Run::Steps(|call| expire(call, 1, false));
/// EXPIREAT key seconds [NX | XX | GT | LT]
pub const EXPIREAT: Run = Run::Steps(|call| expire(call, SECOND, true));
/// PEXPIREAT key milliseconds [NX | XX | GT | LT]
pub const PEXPIREAT: Run = Run::Steps(|call| expire(call, 1, true));

fn expire(call: &Call<'_>, unit: i64, absolute: bool) -> Answered<Plan> {
    let name = call.name(1)?;
    let time = call.number(2)?;
    let when = when(call)?;
    let ms = time.checked_mul(unit).ok_or_else(|| invalid(call))?;
    let expiry = match u64::try_from(ms) {
        // What is over already unbinds the name.
        Err(_) | Ok(0) => Expiry::At(0),
        Ok(ms) if absolute => Expiry::At(ms),
        Ok(ms) => Expiry::In(Duration::from_millis(ms)),
    };
    Ok(Plan::one(Step::Expire { name, expiry, when }, |outcome| Reply::flag(is_done(outcome))))
}

fn when(call: &Call<'_>) -> Answered<ExpireWhen> {
    let [mut absent, mut present, mut greater, mut less] = [false; 4];
    for word in call.args.from(3) {
        match word.to_ascii_lowercase().as_slice() {
            b"nx" => absent = true,
            b"xx" => present = true,
            b"gt" => greater = true,
            b"lt" => less = true,
            _ => return Err(Reply::err(format!("Unsupported option {}", super::shown(word, 128)))),
        }
    }
    match (absent, present, greater, less) {
        (true, false, false, false) => Ok(ExpireWhen::None),
        (true, ..) => Err(Reply::err("NX and XX, GT or LT options at the same time are not compatible")),
        (_, _, true, true) => Err(Reply::err("GT and LT options at the same time are not compatible")),
        // A name that lives for ever cannot live longer: XX adds nothing.
        (_, _, true, _) => Ok(ExpireWhen::Greater),
        (_, true, _, true) => Err(Reply::err("XX and LT together are not supported")),
        (_, _, _, true) => Ok(ExpireWhen::Less),
        (_, true, ..) => Ok(ExpireWhen::Some),
        _ => Ok(ExpireWhen::Always),
    }
}

/// PERSIST key
pub const PERSIST: Run = Run::Steps(|call| {
    let step = Step::Expire { name: call.name(1)?, expiry: Expiry::Clear, when: ExpireWhen::Some };
    Ok(Plan::one(step, |outcome| Reply::flag(is_done(outcome))))
});

/// TTL key
pub const TTL: Run = Run::Steps(|call| told(call, |at, now| rounded(at.saturating_sub(now))));
/// PTTL key
pub const PTTL: Run = Run::Steps(|call| told(call, u64::saturating_sub));
/// EXPIRETIME key
pub const EXPIRETIME: Run = Run::Steps(|call| told(call, |at, _| rounded(at)));
/// PEXPIRETIME key
pub const PEXPIRETIME: Run = Run::Steps(|call| told(call, |at, _| at));

/// Whole seconds, as Redis rounds.
fn rounded(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}

fn told(call: &Call<'_>, tell: fn(u64, u64) -> u64) -> Answered<Plan> {
    let step = Step::Get { name: call.name(1)? };
    Ok(Plan::new(vec![step], move |done, now| {
        let entry = done.first().and_then(|outcome: &StepOutcome| outcome.entry.clone());
        let of = |entry: Entry| Reply::Int(entry.expires_at.map_or(-1, |at| tell(at.get(), now) as i64));
        Answer::of(entry, of, Reply::Int(-2))
    }))
}
