//! Wake-ups between processes: who has written says so by Redis, and the tails of the others look at once instead of
//! at their next turn. A message says nothing else and may be lost; looking in turns is the guarantee.

use std::time::Duration;

use crate::changes::tail::Tail;
use crate::store::redis::Redis;

/// Where messages are sent.
const CHANNEL: &str = "changes";
/// At least so long between two messages of one process: in a rush one message stands for many writes.
const GAP: Duration = Duration::from_millis(1);
/// After a failure, before the messages are listened to again.
const RETRY: Duration = Duration::from_secs(1);

/// Sends and hears messages, until it is dropped.
pub(super) async fn run(tail: &Tail, redis: &Redis) {
    if redis.is_on() {
        tokio::join!(send(tail, redis), hear(tail, redis));
    }
}

async fn send(tail: &Tail, redis: &Redis) {
    loop {
        tail.written().await;
        // Redis being down is told by itself, once; nobody waits for it here.
        drop(redis.publish(CHANNEL, "").await);
        tokio::time::sleep(GAP).await;
    }
}

async fn hear(tail: &Tail, redis: &Redis) {
    loop {
        // What was sent while nobody heard is caught up with by the first look.
        drop(redis.listen(CHANNEL, |_| tail.wake()).await);
        tokio::time::sleep(RETRY).await;
    }
}
