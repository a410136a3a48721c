import { setTimeout as sleep } from "node:timers/promises"
import { Kafka, logLevel } from "kafkajs"

const pollMillis = 100

/** The first attempt at a group's coordinator always fails: it is what makes kafkajs ask for the brokers. */
const clientTo = (brokers: ReadonlyArray<string>) =>
  new Kafka({
    clientId: "tidemark-test-servers",
    brokers: [...brokers],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1_000,
    requestTimeout: 5_000,
    retry: { retries: 3, initialRetryTime: pollMillis, maxRetryTime: pollMillis }
  })

/** Fails unless a broker of the cluster answers; changes nothing there. */
export const answers = async (brokers: ReadonlyArray<string>): Promise<void> => {
  const admin = clientTo(brokers).admin()
  try {
    await admin.connect()
    await admin.describeCluster()
  } finally {
    await admin.disconnect()
  }
}

/**
 * Resolves when topics can be created and groups joined: asking for a group's offsets makes the broker create its
 * offsets topic and load it, so no client sees a coordinator that is still loading. Rejects when `exited` resolves
 * first, or after `timeoutMillis`.
 */
export const ready = async (
  brokers: ReadonlyArray<string>,
  exited: Promise<string>,
  timeoutMillis: number
): Promise<void> => {
  let ended: string | undefined
  exited.then((reason) => {
    ended = reason
  })
  const deadline = performance.now() + timeoutMillis
  for (let lastError: unknown; ; await sleep(pollMillis)) {
    if (ended !== undefined) throw new Error(`the broker ended while starting: ${ended}`)
    if (performance.now() > deadline) {
      throw new Error(`no broker ready at ${brokers} after ${timeoutMillis} ms`, { cause: lastError })
    }
    const admin = clientTo(brokers).admin()
    try {
      await admin.connect()
      await admin.fetchOffsets({ groupId: "tidemark-test-servers-ready" })
      return
    } catch (error) {
      lastError = error
    } finally {
      await admin.disconnect()
    }
  }
}
