/** Writes notes, far more than a pipe holds, tells how many, and waits to be killed. */
import { monotonicMillis, notesDescriptor, tellThrough } from "../../src/Notes.ts"

const count = 20_000
const tell = tellThrough(notesDescriptor)
for (let index = 0; index < count; index++)
  tell({ what: "effect", atMillis: monotonicMillis(), orderId: `order-${index}` })
process.send?.(count)
setInterval(() => {}, 60_000)
