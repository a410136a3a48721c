/** What a consumer who writes plain async code does first: the same id twice, one effect. */
import { makeTracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"

let charges = 0
const charge = async () => {
  charges += 1
  return "charged"
}

const tracker = await makeTracker({ store: MemoryStore.layer(), namespace: "billing" })
const first = await tracker.once("order-4711", charge)
const second = await tracker.once("order-4711", charge)
await tracker.close()
console.log(first._tag, second._tag, charges)
