import { describe, expect, it } from "@effect/vitest"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import { toRequests } from "../src/internal/produceRequests.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import { brokerSuite, newTopic, noBrokerSuite, plainKafka } from "./brokerSuite.ts"
import { enter, memberOptions, Probe, range, startAll, until } from "./kafkaClientSuite.ts"

const driver = { name: "KafkaJs", layer: KafkaJs.layer, layerConfig: KafkaJs.layerConfig }

await describeWithKafka("KafkaJs on a real broker", ({ brokers }) => {
  brokerSuite(driver, brokers)

  it.live("layerClient: a kafkajs client of one's own serves one member a group", () =>
    Effect.gen(function* () {
      const { client, topic, at, groupId } = yield* newTopic()
      yield* client.produce([{ ...at, value: "one" }])
      const first = yield* enter(client, groupId, [topic])
      startAll(first.member, [at])
      yield* until("the record", () => first.probe.count === 1)
      const refused = yield* Effect.flip(
        Effect.scoped(client.join(memberOptions(groupId, [topic], new Probe())))
      )
      expect(refused.reason).toBe("InvalidRequest")
      expect(refused.message).toContain(groupId)
      yield* first.close
      yield* enter(client, groupId, [topic])
    }).pipe(Effect.provide(KafkaJs.layerClient(plainKafka(brokers), { brokers })))
  )
})

noBrokerSuite(driver)

describe("the requests that drivers produce", () => {
  it("requests are cut by bytes and by count, and keep the order", () => {
    const record = (bytes: number) => ({ topic: "orders", value: Buffer.alloc(bytes) })
    expect(toRequests([])).toEqual([])
    expect(toRequests([record(2_000_000)]).length).toBe(1)
    const large = [record(600_000), record(200_000), record(200_000), record(10)]
    expect(toRequests(large).map((request) => request.length)).toEqual([2, 2])
    const many = range(0, 2_500).map((index) => ({ topic: "orders", value: String(index) }))
    expect(toRequests(many).map((request) => request.length)).toEqual([1_000, 1_000, 500])
    expect(toRequests(many).flat()).toEqual(many)
  })
})
