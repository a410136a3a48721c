import { type KafkaClient, type KafkaError, KafkaJs } from "@tidemark/kafka"
import { PlatformaticKafka } from "@tidemark/kafka/platformatic"
import type { Layer } from "effect"

/**
 * The client of a process that a test or a trial starts: on kafkajs, or, with `TIDEMARK_KAFKA_DRIVER=platformatic`, on
 * @platformatic/kafka. Where connections are led through a proxy, it is kafkajs: the other has no such option.
 */
export const kafkaLayer = (
  options: Omit<KafkaJs.Options, "ssl" | "sasl">,
  driver: string | undefined = process.env.TIDEMARK_KAFKA_DRIVER
): Layer.Layer<KafkaClient, KafkaError> => {
  if (driver !== "platformatic" || options.socketFactory !== undefined) return KafkaJs.layer(options)
  const { logLevel: _logLevel, socketFactory: _socketFactory, ...shared } = options
  return PlatformaticKafka.layer(shared)
}
