/**
 * Holds the records of one partition of a retry topic until their time has come. All of them wait equally long, so that
 * those behind one that waits wait as well, and one timer is enough.
 */
import { Effect, type Fiber } from "effect"
import { notBeforeOf } from "../letters.ts"
import type { Environment } from "./environment.ts"
import type { PartitionState } from "./PartitionState.ts"

export class RetryHold {
  /** Until when the first record waits, in milliseconds since the epoch; `undefined`: none does. */
  until: number | undefined
  private readonly environment: Environment
  private readonly delayMillis: number
  private readonly onDue: () => void
  private tile = -1
  private timer: Fiber.Fiber<unknown, unknown> | undefined

  /** @param onDue - told when the first record need not wait any more. */
  constructor(environment: Environment, delayMillis: number, onDue: () => void) {
    this.environment = environment
    this.delayMillis = delayMillis
    this.onDue = onDue
  }

  /** The first tile that waits to be admitted, and one past the last whose time has come. */
  within(state: PartitionState): readonly [first: number, end: number] {
    const [first, end] = state.admissible
    const now = this.environment.clock.currentTimeMillisUnsafe()
    for (let tile = first; tile < end; tile++) {
      const record = state.recordAt(tile)
      if (record === undefined) continue
      if (this.tile !== tile) {
        this.tile = tile
        // by a clock that goes ahead of ours it may be later: no record waits longer than its topic's delay
        this.until = Math.min(notBeforeOf(record, this.environment.settings.groupId), now + this.delayMillis)
      }
      if (this.until !== undefined && this.until > now) {
        this.wake(this.until - now)
        return [first, tile]
      }
    }
    this.until = undefined
    return [first, end]
  }

  private wake(millis: number): void {
    if (this.timer !== undefined) return
    const fiber = this.environment.fork(Effect.sleep(millis))
    this.timer = fiber
    fiber.addObserver(() => {
      if (this.timer !== fiber) return
      this.timer = undefined
      this.onDue()
    })
  }

  /** Nobody waits for it any more. */
  end(): void {
    const { timer } = this
    this.timer = undefined
    this.until = undefined
    timer?.interruptUnsafe()
  }
}
