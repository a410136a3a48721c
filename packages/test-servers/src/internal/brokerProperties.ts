/** Kafka's version, for the jars and for the image. */
export const kafkaVersion = "4.3.0"

/**
 * One KRaft node, broker and controller in one. Topics are made by those who need them, never by a mistyped name;
 * the internal topics are as small as they can be; nothing is deleted while a test or benchmark runs.
 */
export const brokerProperties = (listeners: {
  readonly listen: string
  readonly controllerPort: number
  readonly advertise: string
}): Record<string, string> => ({
  "process.roles": "broker,controller",
  "node.id": "1",
  "controller.quorum.voters": `1@127.0.0.1:${listeners.controllerPort}`,
  "controller.listener.names": "CONTROLLER",
  listeners: `PLAINTEXT://${listeners.listen},CONTROLLER://127.0.0.1:${listeners.controllerPort}`,
  "advertised.listeners": `PLAINTEXT://${listeners.advertise}`,
  "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
  // A broker killed and restarted may register again only when its former session is over.
  "broker.session.timeout.ms": "3000",
  "broker.heartbeat.interval.ms": "500",
  // Members may have shorter sessions than the usual 6 s, so that tests can outlast them.
  "group.min.session.timeout.ms": "1000",
  "auto.create.topics.enable": "false",
  "group.initial.rebalance.delay.ms": "0",
  "offsets.topic.num.partitions": "1",
  "offsets.topic.replication.factor": "1",
  "transaction.state.log.num.partitions": "1",
  "transaction.state.log.replication.factor": "1",
  "transaction.state.log.min.isr": "1",
  "share.coordinator.state.topic.num.partitions": "1",
  "share.coordinator.state.topic.replication.factor": "1",
  "share.coordinator.state.topic.min.isr": "1",
  "log.retention.ms": "-1",
  "log.retention.bytes": "-1",
  "log.cleaner.dedupe.buffer.size": "4194304",
  "log.cleaner.backoff.ms": "500"
})

/** The properties as a `server.properties` file. */
export const propertiesFile = (properties: Record<string, string>): string =>
  Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("")
