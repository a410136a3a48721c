/**
 * Pauses between a record's attempts. They end at once when its partition is let go, so that nobody waits for a record
 * that nobody is at work on.
 */
import { Effect } from "effect"

export class Waits {
  /** Who waits, by the claims under which records may start. */
  private readonly open = new Map<string, Set<() => void>>()

  /** Records start under this claim. */
  begin(claimId: string): void {
    this.open.set(claimId, new Set())
  }

  /** None starts under it any more. */
  end(claimId: string): void {
    const waiting = this.open.get(claimId)
    this.open.delete(claimId)
    for (const wake of waiting ?? []) wake()
  }

  /** Answers whether the time has passed; `false`, at once: nothing starts under this claim any more. */
  sleep(claimId: string, millis: number): Effect.Effect<boolean> {
    const ended = Effect.callback<boolean>((resume) => {
      const waiting = this.open.get(claimId)
      if (waiting === undefined) return resume(Effect.succeed(false))
      const wake = () => resume(Effect.succeed(false))
      waiting.add(wake)
      return Effect.sync(() => void waiting.delete(wake))
    })
    return Effect.raceFirst(ended, Effect.as(Effect.sleep(millis), true))
  }
}
