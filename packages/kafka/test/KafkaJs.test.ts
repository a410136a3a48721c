import { Effect, Layer } from "effect"
import * as KafkaJs from "../src/KafkaJs.ts"
import { kafkaClientSuite } from "./kafkaClientSuite.ts"

kafkaClientSuite("KafkaJs", KafkaJs.layer({ brokers: (process.env.KAFKA_BROKERS ?? "").split(",") }))
