//! `changes`: the change log as JSON lines. A line's cursor goes on right after that line, in any process that has
//! the same secret.

use std::io::{ErrorKind, Write};

use chrono::SecondsFormat;
use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use crate::changes::batch::Batch;
use crate::changes::tail::Tail;
use crate::cli::{dev, serve};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::change::{Place, oldest, read};
use crate::model::cursor::CursorKey;
use crate::store::db::Db;
use crate::store::redis::Redis;

/// Changes read at once.
const PAGE: usize = 1_000;

/// The options of `changes`.
#[derive(Debug, Args)]
pub struct Changes {
    /// Go on when the end is reached, with what is written from then on.
    #[arg(long)]
    follow: bool,
    /// Begin after the line that had this cursor; otherwise with the oldest change that the log has.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

impl Changes {
    /// Prints until the end, or with `--follow` until SIGINT, SIGTERM or the end of the one who reads.
    pub async fn run(self, config: &Config) -> Result<()> {
        // Without a secret it is that of `dev`, which is started without one too.
        let secret =
            config.token_secret.as_ref().map_or(dev::DEV_SECRET, |secret| secret.expose().as_bytes());
        let key = CursorKey::new(secret);
        let after = self.after.as_ref().map(|cursor| Place::read("--after", cursor, &key)).transpose()?;
        let url = config.required_database_url()?;
        let db = Db::connect(url, &config.db_options()).await?;
        let (stop, _) = serve::stop_signals()?;
        let printed = async {
            let place = match after {
                Some(place) => place,
                None => oldest(&db.session()).await?,
            };
            // What is wrong with the cursor is said at once, also if nothing will ever follow it.
            let place = print_rest(&db, place, &key).await?;
            match place {
                Some(place) if self.follow => follow(config, url, db.clone(), place, &key).await,
                _ => Ok(()),
            }
        };
        tokio::select! {
            printed = printed => printed,
            () = stop => Ok(()),
        }
    }
}

/// Prints what there is; nowhere to go on if nobody reads any more.
async fn print_rest(db: &Db, mut place: Place, key: &CursorKey) -> Result<Option<Place>> {
    // A cursor may stand in a set that ended long ago; the next one ends now.
    let mut to_now = false;
    loop {
        to_now |= place.within.is_none();
        let slice = read(&db.session(), &place, None, PAGE).await?;
        let partial = slice.is_partial();
        let (batch, next) = Batch::new(None, slice);
        if !print(&batch, key).await? {
            return Ok(None);
        }
        place = next;
        if to_now && !partial {
            return Ok(Some(place));
        }
    }
}

async fn follow(config: &Config, url: &str, db: Db, place: Place, key: &CursorKey) -> Result<()> {
    let tail = Tail::new(config, url, db, Redis::Off);
    let mut follower = tail.follow(place);
    let printed = async {
        while print(&*follower.next().await?, key).await? {}
        Ok(())
    };
    tokio::select! {
        printed = printed => printed,
        () = tail.follow_log() => Ok(()),
    }
}

/// Prints whole lines; false if nobody reads them.
async fn print(batch: &Batch, key: &CursorKey) -> Result<bool> {
    let mut lines = String::new();
    for (n, change) in batch.changes.iter().enumerate() {
        let line = json!({
            "cursor": batch.place(n).cursor(key),
            "entity": change.entity,
            "id": change.id,
            "op": change.op.as_str(),
            "at": change.at.to_rfc3339_opts(SecondsFormat::Micros, true),
            "project_id": change.project_id,
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    // A reader may be as slow as it likes. A thread of its own waits for it, which does not keep the program from
    // ending, as one of the runtime would.
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        // Nobody is told if the program ends.
        drop(tell.send(stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush())));
    });
    match told.await.map_err(Error::internal)? {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Error::internal),
    }
}
