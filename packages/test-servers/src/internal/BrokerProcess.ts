/** A broker of our own, by whichever way it runs. */
export interface BrokerProcess {
  readonly brokers: ReadonlyArray<string>
  /** Ends the broker as a power cut would. Its data and its address are kept. */
  readonly kill: () => Promise<void>
  /** Starts a killed broker again, at the same address, and resolves when it is ready. */
  readonly restart: () => Promise<void>
  /** Ends the broker and removes all that it wrote. Idempotent. */
  readonly stop: () => Promise<void>
}

/** A cold disk and a busy machine included; a start takes some 4 s otherwise. */
export const startTimeoutMillis = 90_000
