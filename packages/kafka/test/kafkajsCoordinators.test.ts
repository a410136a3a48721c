import { expect, it } from "@effect/vitest"
import kafkajs from "kafkajs"
import { makeProducerWithCluster, rememberCoordinators } from "../src/internal/kafkajsCoordinators.ts"

it("kafkajs has inside what it had, and is left as it was", () => {
  const kafka = new kafkajs.Kafka({ brokers: ["localhost:1"] })
  const [symbol] = Object.getOwnPropertySymbols(kafka).filter(({ description }) =>
    description?.endsWith("createCluster")
  )
  const inside = kafka as unknown as Record<symbol, unknown>
  const before = inside[symbol as symbol]
  const make = () => kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
  const { cluster, producer } = makeProducerWithCluster(kafka, make)
  expect(cluster).toBeDefined()
  expect(producer.sendBatch).toBeTypeOf("function")
  expect(inside[symbol as symbol]).toBe(before)
})

it("asks once for each coordinator, and again where there was no answer", async () => {
  const asked: Array<string> = []
  let isReady = false
  const cluster = {
    findGroupCoordinatorMetadata: ({
      groupId
    }: {
      readonly groupId: string
      readonly coordinatorType?: number
    }) => {
      asked.push(groupId)
      return isReady ? Promise.resolve({ coordinator: { nodeId: 1 } }) : Promise.reject(new Error("loading"))
    }
  }
  rememberCoordinators(cluster)
  const ask = (groupId: string, coordinatorType = 0) =>
    cluster.findGroupCoordinatorMetadata({ groupId, coordinatorType })
  await expect(ask("group")).rejects.toThrow("loading")
  isReady = true
  await ask("group")
  await ask("group")
  await ask("group", 1)
  expect(await ask("another")).toEqual({ coordinator: { nodeId: 1 } })
  expect(asked).toEqual(["group", "group", "group", "another"])
})
