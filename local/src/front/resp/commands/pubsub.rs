//! SUBSCRIBE, for the one channel on which RESP2 clients are told of invalidations. Nobody publishes here.

use super::{Call, Reply, Run};

/// Channels that one client listens to.
const CHANNELS_MAX: usize = 64;

/// SUBSCRIBE channel [channel ...]
pub const SUBSCRIBE: Run = Run::Only(|call| {
    if call.client.channels.len() + call.args.len() > CHANNELS_MAX {
        return Err(Reply::err("too many channels: nothing is published here but `__redis__:invalidate`"));
    }
    let mut replies = Vec::new();
    for at in 1..call.args.len() {
        let channel = call.args.bytes(at);
        if !call.client.channels.contains(&channel) {
            call.client.channels.push(channel.clone());
        }
        replies.push(told("subscribe", Reply::Bulk(channel), call));
    }
    Ok(Reply::Several(replies).into())
});

/// UNSUBSCRIBE [channel ...]
pub const UNSUBSCRIBE: Run = Run::Only(|call| {
    let all = call.args.len() == 1;
    let channels = if all {
        call.client.channels.clone()
    } else {
        (1..call.args.len()).map(|at| call.args.bytes(at)).collect()
    };
    let mut replies = Vec::new();
    for channel in channels {
        call.client.channels.retain(|other| *other != channel);
        replies.push(told("unsubscribe", Reply::Bulk(channel), call));
    }
    if replies.is_empty() {
        replies.push(told("unsubscribe", Reply::Nil, call));
    }
    Ok(Reply::Several(replies).into())
});

fn told(what: &'static str, channel: Reply, call: &Call<'_>) -> Reply {
    Reply::Push(vec![Reply::word(what), channel, Reply::count(call.client.channels.len())])
}
