import { trials } from "./trials/trials.ts"
const [name, store, records, partitions, every, times] = process.argv.slice(2)
const options = { seed: 1, records: +records, partitions: +partitions, store, everyMillis: +every, times: +times, onProgress: process.env.V ? (s, w) => console.log(w) : undefined }
const outcome = await trials[name].run(options)
console.log({ ...outcome, lost: outcome.lost.length, twice: outcome.twice.length, unexplained: outcome.unexplained.slice(0, 3) }, trials[name].broken(outcome, options))
