export * as KafkaClient from "./KafkaClient.ts"
