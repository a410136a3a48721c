export * as InProcessKafka from "./InProcessKafka.ts"
export * from "./KafkaClient.ts"
export * from "./KafkaErrors.ts"
export * as KafkaJs from "./KafkaJs.ts"
