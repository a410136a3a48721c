import { Effect } from "effect"
import { KafkaError } from "../KafkaErrors.ts"

/** One step of a transactional producer, in the only order that there is. */
export type InOrder = (
  operation: string,
  /** Whether a transaction must be open before it, and whether one is after it. */
  open: { readonly before: boolean; readonly after: boolean },
  act: Effect.Effect<void, KafkaError>
) => Effect.Effect<void, KafkaError>

/** Refuses what comes out of order, and whatever follows a failure. */
export const makeInOrder = (brokers: ReadonlyArray<string>): InOrder => {
  let isOpen = false
  let failed = false
  return (operation, open, act) =>
    Effect.suspend(() => {
      const refuse = (detail: string) =>
        Effect.fail(
          new KafkaError({ reason: "InvalidRequest", operation, brokers, detail, retriable: false })
        )
      if (failed) return refuse("this transactional producer has failed before; make it anew")
      if (open.before !== isOpen)
        return refuse(isOpen ? "a transaction is open already" : "no transaction is open")
      return Effect.matchEffect(act, {
        onFailure: (error) => {
          failed = true
          return Effect.fail(error)
        },
        onSuccess: () => {
          isOpen = open.after
          return Effect.void
        }
      })
    })
}

/** Runs steps one after the other, also those whose callers have gone. */
export const makeInTurn = (): (<A>(act: () => Promise<A>) => Promise<A>) => {
  let last: Promise<unknown> = Promise.resolve()
  return (act) => {
    const next = last.then(act)
    last = next.catch(() => {})
    return next
  }
}
