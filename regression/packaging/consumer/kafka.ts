/** The consumer's package loads beside kafkajs, and its entry points are there. */
import { KafkaClient, KafkaConsumer } from "@tidemark/kafka"

console.log(typeof KafkaClient, typeof KafkaConsumer.run)
