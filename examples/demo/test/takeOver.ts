import { uniqueName } from "@tidemark/test-servers"
import { type ConsumerCrashEvent, type ISocketFactory, Kafka, logLevel } from "kafkajs"
import { expect } from "vitest"
import { makeMortalSockets } from "../src/MortalSockets.ts"

const sessionTimeoutMillis = 6_000
const heartbeatMillis = 500

export interface Cluster {
  readonly brokers: ReadonlyArray<string>
  readonly socketFactory: ISocketFactory
  readonly createTopic: (topic: string) => Promise<void>
  readonly partitions: number
}

/** Two members of a group, one of which is killed: the other gets everything, though not before the session is over. */
export const expectTakeOver = async ({ brokers, createTopic, partitions, socketFactory }: Cluster) => {
  const topic = uniqueName("orders")
  const groupId = uniqueName("shipping")
  await createTopic(topic)
  const connectWith = (factory: ISocketFactory) =>
    new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING, socketFactory: factory })

  const join = async (factory: ISocketFactory) => {
    const received: Array<string> = []
    let assigned: ReadonlyArray<number> = []
    const crashed = Promise.withResolvers<ConsumerCrashEvent["payload"]>()
    const consumer = connectWith(factory).consumer({
      groupId,
      sessionTimeout: sessionTimeoutMillis,
      rebalanceTimeout: sessionTimeoutMillis,
      heartbeatInterval: heartbeatMillis,
      maxWaitTimeInMs: 250,
      retry: { restartOnFailure: () => Promise.resolve(false) }
    })
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      assigned = payload.memberAssignment[topic] ?? []
    })
    consumer.on(consumer.events.CRASH, ({ payload }) => crashed.resolve(payload))
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      eachMessage: async ({ message }) => {
        received.push(String(message.value))
      }
    })
    return { consumer, received, crashed: crashed.promise, assigned: () => assigned }
  }

  const mortal = makeMortalSockets(socketFactory)
  const survivor = await join(socketFactory)
  const victim = await join(mortal.socketFactory)
  await expect
    .poll(() => survivor.assigned().length + victim.assigned().length, { timeout: 15_000 })
    .toBe(partitions)
  expect(victim.assigned().length).toBe(partitions / 2)

  const killedAt = performance.now()
  mortal.kill()
  expect((await victim.crashed).restart).toBe(false)
  await expect.poll(() => survivor.assigned().length, { timeout: 30_000 }).toBe(partitions)
  expect(performance.now() - killedAt).toBeGreaterThan(sessionTimeoutMillis - 2 * heartbeatMillis)

  const producer = connectWith(socketFactory).producer()
  await producer.connect()
  const values = Array.from({ length: partitions }, (_, partition) => `order ${partition}`)
  await producer.send({ topic, messages: values.map((value, partition) => ({ partition, value })) })
  await producer.disconnect()
  await expect.poll(() => values.filter((value) => !survivor.received.includes(value))).toEqual([])
  expect(victim.received).not.toEqual(expect.arrayContaining(values))
  await survivor.consumer.disconnect()
}
