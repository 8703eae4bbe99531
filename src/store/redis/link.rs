//! The connections to one server, or to all servers of a cluster. They are made when they are first needed and made
//! anew when they broke.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo as Place,
};
use redis::{Client, Cmd, FromRedisValue, RedisError, RedisResult, Value, cmd};
use tokio::sync::Mutex;

/// Between attempts to connect again at most.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Connections to one server or to a cluster.
pub(super) struct Link {
    kind: Kind,
    /// One for every address that was given.
    clients: Vec<Client>,
    /// Which of them is listened to.
    listened: AtomicUsize,
}

enum Kind {
    Server(ConnectionManager),
    Cluster(Box<ClusterClient>, Mutex<Option<ClusterConnection>>),
}

impl Link {
    /// To the servers at these addresses; several are of one cluster. `limit` is for connecting and for an answer.
    pub(super) fn new(addresses: &str, limit: Duration) -> RedisResult<Self> {
        let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
        let clients: Vec<Client> =
            addresses.iter().map(|address| Client::open(*address)).collect::<RedisResult<_>>()?;
        let kind = match &clients[..] {
            [client] => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(Some(limit))
                    .set_number_of_retries(1)
                    .set_max_delay(MAX_DELAY);
                Kind::Server(ConnectionManager::new_lazy_with_config(client.clone(), config)?)
            }
            _ => {
                // Who asks waits no longer than the limit anyway.
                let builder = ClusterClient::builder(addresses).retries(1).connection_timeout(limit);
                Kind::Cluster(Box::new(builder.response_timeout(limit).build()?), Mutex::default())
            }
        };
        Ok(Self { kind, clients, listened: AtomicUsize::default() })
    }

    /// Asks the server, or the one of the cluster that has the key.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match &self.kind {
            Kind::Server(connection) => command.query_async(&mut connection.clone()).await,
            Kind::Cluster(..) => command.query_async(&mut self.cluster().await?).await,
        }
    }

    /// Asks one of the [`Self::primaries`].
    pub(super) async fn ask_at<T: FromRedisValue>(
        &self,
        place: Option<&Place>,
        command: &Cmd,
    ) -> RedisResult<T> {
        let Some(place) = place else { return self.ask(command).await };
        let routing = RoutingInfo::SingleNode(place.clone());
        let value = self.cluster().await?.route_command(command.clone(), routing).await?;
        T::from_redis_value(value).map_err(RedisError::from)
    }

    /// The servers that have keys of their own; the lone one has no place.
    pub(super) async fn primaries(&self) -> RedisResult<Vec<Option<Place>>> {
        if matches!(self.kind, Kind::Server(_)) {
            return Ok(vec![None]);
        }
        let all =
            RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::Special)));
        let Value::Map(answers) = self.cluster().await?.route_command(cmd("PING"), all).await? else {
            return Ok(Vec::new());
        };
        let place = |(address, _): (Value, Value)| {
            let address = String::from_redis_value(address).ok()?;
            let (host, port) = address.rsplit_once(':')?;
            Some(Some(Place::ByAddress { host: host.to_owned(), port: port.parse().ok()? }))
        };
        Ok(answers.into_iter().filter_map(place).collect())
    }

    /// A connection that hears what is published; in a cluster at any server, for they pass it on. The next attempt
    /// is at the next server.
    pub(super) async fn listener(&self) -> RedisResult<PubSub> {
        let turn = self.listened.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        self.clients[turn].get_async_pubsub().await
    }

    /// Has the connections of a cluster made anew: it knows its servers no more, or never did.
    pub(super) fn give_up(&self) {
        if let Kind::Cluster(_, connection) = &self.kind
            && let Ok(mut connection) = connection.try_lock()
        {
            *connection = None;
        }
    }

    async fn cluster(&self) -> RedisResult<ClusterConnection> {
        let Kind::Cluster(client, connection) = &self.kind else {
            return Err(RedisError::from((redis::ErrorKind::InvalidClientConfig, "not a cluster")));
        };
        let mut connection = connection.lock().await;
        if connection.is_none() {
            *connection = Some(client.get_async_connection().await?);
        }
        connection.clone().ok_or_else(|| RedisError::from((redis::ErrorKind::Io, "no connection")))
    }
}
