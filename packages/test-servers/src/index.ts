export { type KafkaServer, type OwnKafkaServer, startKafka, startOwnKafka } from "./Kafka.ts"
export { ServerUnavailable } from "./ServerUnavailable.ts"
export { uniqueName } from "./uniqueName.ts"
