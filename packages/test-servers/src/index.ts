export { type KafkaServer, type OwnKafkaServer, startKafka, startOwnKafka } from "./Kafka.ts"
export {
  type OwnRedisOptions,
  type OwnRedisServer,
  type RedisServer,
  startOwnRedis,
  startRedis
} from "./Redis.ts"
export { ServerUnavailable } from "./ServerUnavailable.ts"
export { startTcpProxy, type TcpProxy } from "./TcpProxy.ts"
export { uniqueName } from "./uniqueName.ts"
