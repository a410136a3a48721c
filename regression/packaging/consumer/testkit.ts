import { OffsetStore } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { offsetStoreChecks, offsetStoreModelCheck, openLayer, runChecks } from "@tidemark/testkit"
import { Context, Effect } from "effect"

const open = openLayer(MemoryStore.layer(), Context.get(OffsetStore))
const checks = [...offsetStoreChecks, offsetStoreModelCheck({ seed: 17, runs: 10 })]

const outcomes = await Effect.runPromise(runChecks(checks, { open, clock: "test" }))
for (const outcome of outcomes) if (outcome._tag === "Failed") console.log(outcome.check, outcome.message)
console.log(outcomes.some(({ _tag }) => _tag === "Failed") ? "broken" : "kept")
