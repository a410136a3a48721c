import { setTimeout as sleep } from "node:timers/promises"
import { Redis } from "ioredis"

const pollMillis = 30

/** A connection for one question: no retries, no queue, and its errors come from `connect` and the command. */
const connected = async (url: string): Promise<Redis> => {
  const client = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 2_000,
    commandTimeout: 5_000,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0
  })
  let cause: unknown
  // "Connection is closed." is all that connect itself says: the reason comes as an event.
  client.on("error", (error) => {
    cause = error
  })
  try {
    await client.connect()
    return client
  } catch (error) {
    client.disconnect()
    throw cause ?? error
  }
}

/** Asks a server one thing, by a connection of its own; rejects with the reason where it does not answer. */
export const askRedis = async <A>(url: string, question: (client: Redis) => Promise<A>): Promise<A> => {
  const client = await connected(url)
  try {
    return await question(client)
  } finally {
    client.disconnect()
  }
}

/** Fails unless a server answers there; changes nothing. */
export const answersPing = async (url: string): Promise<void> => {
  await askRedis(url, (client) => client.ping())
}

/** Resolves when `condition` does so, asked again and again; rejects when `exited` resolves first, or too late. */
export const eventually = async (wait: {
  readonly what: string
  readonly condition: () => Promise<unknown>
  readonly exited?: Promise<string>
  readonly timeoutMillis: number
}): Promise<void> => {
  let ended: string | undefined
  wait.exited?.then((reason) => {
    ended = reason
  })
  const deadline = performance.now() + wait.timeoutMillis
  for (let lastError: unknown; ; await sleep(pollMillis)) {
    if (ended !== undefined) throw new Error(`it ended while starting: ${ended}`)
    if (performance.now() > deadline) {
      throw new Error(`not so after ${wait.timeoutMillis} ms: ${wait.what}`, { cause: lastError })
    }
    try {
      await wait.condition()
      return
    } catch (error) {
      lastError = error
    }
  }
}
