/** The five load tests by which trackers of duplicates are judged. */
import { test as contention } from "./contention.ts"
import { test as duplicates } from "./duplicates.ts"
import { test as heap } from "./heap.ts"
import type { LoadTest } from "./LoadTest.ts"
import { test as readers } from "./readers.ts"
import { test as throughput } from "./throughput.ts"

export const loadTests: ReadonlyArray<LoadTest> = [throughput, readers, duplicates, contention, heap]
