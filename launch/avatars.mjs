// Renders the avatars of launch/avatars.py; launch/avatars.sh runs it.
//
//   node avatars.mjs <jobs.jsonl
//
// Pictures that are there already are left as they are.
import { createAvatar } from '@dicebear/core';
import { Resvg } from '@resvg/resvg-js';
import fs from 'node:fs';
import readline from 'node:readline';

const styles = {};
let made = 0;
let kept = 0;
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { file, size, style, options } = JSON.parse(line);
  if (fs.existsSync(file)) {
    kept += 1;
    continue;
  }
  styles[style] ??= await import(`@dicebear/${style}`);
  // Whatever DiceBear would still draw by itself is the same for all.
  const svg = createAvatar(styles[style], { seed: 'arvision', ...options });
  const picture = new Resvg(svg.toString(), {
    fitTo: { mode: 'width', value: size },
    background: 'white',
    font: { loadSystemFonts: false },
  }).render();
  // Nothing half-written carries the name of a picture.
  fs.writeFileSync(`${file}.part`, picture.asPng());
  fs.renameSync(`${file}.part`, file);
  made += 1;
  if (made % 1000 === 0) console.error(`${made} pictures`);
}
console.error(`${made} pictures made, ${kept} were there`);
