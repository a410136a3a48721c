/**
 * Calls that may each take the same time: one timer serves all of them, so that a call costs none.
 *
 * @example
 * const limit = new TimeLimit<Call>(5_000, (call) => call.fail("no answer"))
 * limit.watch(call) // and once it has been answered:
 * limit.forget(call)
 */
export class TimeLimit<Call extends { readonly since: number }> {
  /** By when they came. */
  private readonly open = new Set<Call>()
  private timer: NodeJS.Timeout | undefined
  private readonly onOver: (call: Call) => void
  readonly millis: number

  /** @param onOver - called once for a call that is not forgotten after `millis`; it is forgotten then. */
  constructor(millis: number, onOver: (call: Call) => void) {
    this.millis = millis
    this.onOver = onOver
  }

  /** `call.since` is when it began, by `performance.now()`: just now. */
  watch(call: Call): void {
    this.open.add(call)
    // one that lives on when all are answered; it keeps no process alive
    this.timer ??= setTimeout(this.look, this.millis).unref()
  }

  forget(call: Call): void {
    this.open.delete(call)
  }

  /** Watches no more. */
  close(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.open.clear()
  }

  /** Gives up on those whose time is over, and looks again when that of the next one is. */
  private readonly look = (): void => {
    this.timer = undefined
    const endedBefore = performance.now() - this.millis
    for (const call of this.open) {
      if (call.since > endedBefore) {
        this.timer ??= setTimeout(this.look, Math.ceil(call.since - endedBefore)).unref()
        return
      }
      this.open.delete(call)
      this.onOver(call)
    }
  }
}
