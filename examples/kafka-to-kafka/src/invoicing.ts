import { KafkaJs, KafkaPipe, type KafkaRecord } from "@tidemark/kafka"
import { Effect, Schema } from "effect"

const Order = Schema.fromJsonString(Schema.Struct({ item: Schema.String, cents: Schema.Int }))

/** One invoice for an order, and a reminder with it for a large one; what is no order goes to `refused`. */
const invoice = ({ key, offset, value }: KafkaRecord) =>
  Schema.decodeUnknownEffect(Order)(String(value)).pipe(
    Effect.map(({ cents, item }): ReadonlyArray<KafkaPipe.OutputRecord> => {
      const record = { key: key ?? "", value: JSON.stringify({ invoice: offset, item, cents }) }
      return cents < 10_000
        ? [{ topic: "invoices", ...record }]
        : [
            { topic: "invoices", ...record },
            { topic: "reminders", ...record }
          ]
    }),
    Effect.catch(({ message }) =>
      Effect.succeed([{ topic: "refused", value: value ?? null, headers: { why: message } }])
    )
  )

const program = KafkaPipe.run({
  from: "orders",
  to: ["invoices", "reminders", "refused"],
  groupId: "invoicing",
  transform: invoice
})

// KAFKA_BROKERS=localhost:9092
const pipe = Effect.runFork(Effect.provide(program, KafkaJs.layerConfig()))

// ends the transaction that is under way, and leaves the group
process.once("SIGTERM", () => pipe.interruptUnsafe())
