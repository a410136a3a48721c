/**
 * Runs librdkafka's mock cluster for as long as the parent lives. A process of its own, since native code that fails
 * takes its process down. The cluster's address appears in librdkafka's log on standard output, and nowhere else.
 */
export type ProgramReport = { readonly unavailable: string }

const start = async (): Promise<unknown> => {
  const { KafkaClient } = await import("kafka-crab-js")
  const client = new KafkaClient({
    brokers: "localhost:1",
    clientId: "tidemark-demo",
    logLevel: "info",
    diagnostics: false,
    configuration: { "test.mock.num.brokers": "1" }
  })
  return client.createProducer({ configuration: {} })
}

process.once("disconnect", () => process.exit(0))
try {
  const producer = await start()
  // The cluster ends when its producer is collected.
  Object.assign(globalThis, { producer })
} catch (error) {
  process.send?.({ unavailable: String(error) } satisfies ProgramReport)
}
