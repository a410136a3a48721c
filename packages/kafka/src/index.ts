export * as InProcessKafka from "./InProcessKafka.ts"
export * from "./KafkaClient.ts"
export * from "./KafkaErrors.ts"
