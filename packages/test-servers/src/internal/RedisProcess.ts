/** A Redis of our own, by whichever way it runs. */
export interface RedisProcess {
  /** `host:port` */
  readonly address: string
  /** Ends the server as a power cut would. Its address and what is on its disk are kept. */
  readonly kill: () => Promise<void>
  /** Starts a killed server again, at the same address, and resolves when it has loaded its data. */
  readonly restart: () => Promise<void>
  /** Stops the server where it stands: connections stay open, and nothing is answered. */
  readonly pause: () => Promise<void>
  /** Lets a paused server go on; it answers what it was asked meanwhile. */
  readonly resume: () => Promise<void>
  /** Ends the server and removes all that it wrote. Idempotent. */
  readonly stop: () => Promise<void>
}

/** What a server is started with. */
export interface RedisProcessOptions {
  readonly appendonly: boolean
  readonly config: Readonly<Record<string, string>>
}

/** A busy machine included; a start takes a fifth of a second otherwise. */
export const startTimeoutMillis = 30_000

/** The address as a URL, with the password that the server asks for. */
export const redisUrl = (address: string, config: RedisProcessOptions["config"]): string =>
  `redis://${config.requirepass === undefined ? "" : `:${encodeURIComponent(config.requirepass)}@`}${address}`

/**
 * What every server of ours is told. It writes nothing but the append-only file, and that before it answers, so
 * that a kill loses nothing that was acknowledged.
 */
export const commonConfig = ({ appendonly, config }: RedisProcessOptions): Record<string, string> => ({
  save: '""',
  appendonly: appendonly ? "yes" : "no",
  appendfsync: "always",
  "protected-mode": "no",
  ...config
})
