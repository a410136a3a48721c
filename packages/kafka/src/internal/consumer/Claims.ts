/**
 * The claims under which records are at work: whether they hold, and the pauses between a record's attempts. These end
 * at once when the partition is let go, so that nobody waits for a record that nobody is at work on.
 */
import { Effect } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { Partition } from "./Partition.ts"

interface Claimed {
  readonly partition: Pick<Partition, "isOver">
  readonly waiting: Set<() => void>
  /** Whether records may start under it. */
  open: boolean
}

export class Claims {
  private readonly held = new Map<string, Claimed>()

  /** Records start under this claim. */
  begin(claimId: string, partition: Pick<Partition, "isOver">): void {
    this.held.set(claimId, { partition, waiting: new Set(), open: true })
  }

  /** None starts under it any more; those at work go on. */
  end(claimId: string): void {
    const claimed = this.held.get(claimId)
    if (claimed === undefined) return
    claimed.open = false
    for (const wake of [...claimed.waiting]) wake()
  }

  /** It does not hold any more. */
  forget(claimId: string): void {
    this.end(claimId)
    this.held.delete(claimId)
  }

  /**
   * Whether these records, which are at work under the claim, are no longer ours to process: they are left undone then,
   * whatever their handlers say, since their next owner runs them.
   */
  isOver(claimId: string, records: ReadonlyArray<KafkaRecord>): boolean {
    return this.held.get(claimId)?.partition.isOver(records) ?? true
  }

  /** Answers whether the time has passed; `false`, at once: nothing starts under this claim any more. */
  sleep(claimId: string, millis: number): Effect.Effect<boolean> {
    const ended = Effect.callback<boolean>((resume) => {
      const claimed = this.held.get(claimId)
      if (claimed?.open !== true) return resume(Effect.succeed(false))
      const wake = () => resume(Effect.succeed(false))
      claimed.waiting.add(wake)
      return Effect.sync(() => void claimed.waiting.delete(wake))
    })
    return Effect.raceFirst(ended, Effect.as(Effect.sleep(millis), true))
  }
}
