export { type KafkaServer, type OwnKafkaServer, startKafka, startOwnKafka } from "./Kafka.ts"
export {
  type OwnRedisOptions,
  type OwnRedisServer,
  type RedisServer,
  startOwnRedis,
  startRedis,
  startValkey
} from "./Redis.ts"
export { type RedisCluster, startRedisCluster } from "./RedisCluster.ts"
export { type RedisReplication, startRedisReplication } from "./RedisReplication.ts"
export { type RedisSentinel, startRedisSentinel } from "./RedisSentinel.ts"
export { ServerUnavailable } from "./ServerUnavailable.ts"
export { startTcpProxy, type TcpProxy } from "./TcpProxy.ts"
export { uniqueName } from "./uniqueName.ts"
