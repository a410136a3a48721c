import { once } from "node:events"
import { createServer, type Server } from "node:net"
import { ProxiedConnection, type Weather } from "./internal/ProxiedConnection.ts"
import { freePorts } from "./internal/ports.ts"

/** A network between a client and a server, which a test spoils and mends. Nothing is lost unless it is said here. */
export interface TcpProxy extends Disposable {
  /** `host:port` where it listens, the same for as long as it lives. */
  readonly address: string
  /** Resets all connections and refuses new ones, as when a server dies or a cable is cut with notice. */
  readonly cut: () => void
  /** Refuses new connections and leaves those that are open alone. */
  readonly refuse: () => void
  /**
   * Lets nothing pass, in either direction, without closing anything; new connections are accepted and get no
   * answer. So it is when a cable is cut without notice. After `heal` everything arrives, late.
   */
  readonly halfOpen: () => void
  /** Throws away all answers; requests still get through. `heal` resets the connections that lost some. */
  readonly dropAnswers: () => void
  /**
   * Loses one answer: the next request whose bytes contain `request` (any one, by default) gets through to the
   * server, and when it is answered the client sees a reset in place of the answer. Resolves when that happened.
   * Everything goes on as usual then, so that a client may connect and ask again.
   */
  readonly loseNextAnswer: (request?: string) => Promise<void>
  /** Every piece of data is under way for so long, each way, from now on; 0 for none. */
  readonly delay: (millis: number) => void
  /** Undoes `cut`, `refuse`, `halfOpen`, `dropAnswers` and `delay`. */
  readonly heal: () => Promise<void>
  /** Resets all connections and listens no more. Idempotent. */
  readonly stop: () => void
}

/** An answer that shall be lost. */
interface Loss {
  readonly request: Buffer
  readonly happened: () => void
  /** The connection whose request it was. */
  connection: symbol | undefined
}

/**
 * Starts a proxy on a port of 127.0.0.1 before a server at `target`, given as `host:port`.
 *
 * @example
 * await using redis = await startOwnRedis()
 * using network = await startTcpProxy(redis.address)
 * const client = new Redis(`redis://${network.address}`)
 * const lost = network.loseNextAnswer("incr")
 * await client.incr("orders") // 2: the client asked again, and the server had counted before
 * await lost
 */
export const startTcpProxy = async (target: string): Promise<TcpProxy> => {
  const separator = target.lastIndexOf(":")
  const address = { host: target.slice(0, separator), port: Number(target.slice(separator + 1)) }
  const [port] = await freePorts(1)
  const weather: Weather = { halfOpen: false, droppingAnswers: false, delayMillis: 0 }
  const connections = new Map<symbol, ProxiedConnection>()
  let losses: ReadonlyArray<Loss> = []
  let server: Server | undefined

  const accept = (): Server =>
    createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
      const id = Symbol()
      let before = Buffer.alloc(0)
      const connection = new ProxiedConnection(client, address, weather, {
        onRequest: (piece) => {
          const waiting = losses.find((loss) => loss.connection === undefined)
          if (waiting === undefined) return
          // A request may come in two pieces.
          const sent = Buffer.concat([before, piece])
          if (sent.includes(waiting.request)) waiting.connection = id
          before = sent.subarray(Math.max(0, sent.length - waiting.request.length + 1))
        },
        losesAnswer: () => {
          const loss = losses.find(({ connection }) => connection === id)
          if (loss === undefined) return false
          losses = losses.filter((other) => other !== loss)
          loss.happened()
          return true
        },
        onClose: () => {
          connections.delete(id)
          for (const loss of losses) if (loss.connection === id) loss.connection = undefined
        }
      })
      connections.set(id, connection)
    })

  const listen = async (): Promise<void> => {
    if (server !== undefined) return
    const opened = accept().unref()
    server = opened
    opened.listen(port, "127.0.0.1")
    // one that is cut again in the same turn never says that it listens
    await Promise.race([once(opened, "listening"), once(opened, "close")])
  }
  /** The port is free at once; its event would come only when all connections are closed. */
  const refuse = (): void => {
    server?.close()
    server = undefined
  }
  const resetAll = (): void => {
    for (const connection of connections.values()) connection.reset()
  }
  const followAll = (): void => {
    for (const connection of connections.values()) connection.follow()
  }
  const cut = (): void => {
    refuse()
    resetAll()
  }

  await listen()
  return {
    address: `127.0.0.1:${port}`,
    cut,
    refuse,
    halfOpen: () => {
      weather.halfOpen = true
      followAll()
    },
    dropAnswers: () => {
      weather.droppingAnswers = true
    },
    loseNextAnswer: (request = "") =>
      new Promise((happened) => {
        losses = [...losses, { request: Buffer.from(request), happened, connection: undefined }]
      }),
    delay: (millis) => {
      weather.delayMillis = millis
    },
    heal: async () => {
      Object.assign(weather, { halfOpen: false, droppingAnswers: false, delayMillis: 0 } satisfies Weather)
      followAll()
      await listen()
    },
    stop: cut,
    [Symbol.dispose]: cut
  }
}
