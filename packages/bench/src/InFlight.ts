/** Does `work` for every item, `count` at a time. */
export const inFlight = async <T>(
  items: ReadonlyArray<T>,
  count: number,
  work: (item: T, index: number) => Promise<unknown>
): Promise<void> => {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++
      await work(items[index], index)
    }
  }
  await Promise.all(Array.from({ length: Math.min(count, items.length) }, worker))
}
