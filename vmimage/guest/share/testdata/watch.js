// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0
// Prints a file's text at the start and each time it is changed, as a server with reload does.
const fs = require('fs'), path = require('path');
const [folder, name] = process.argv.slice(2);
function load() {
  try {
    console.log('loaded ' + fs.readFileSync(path.join(folder, name), 'utf8').trim());
  } catch (e) {
    if (e.code !== 'ENOENT') throw e; // between two steps of a save
  }
}
try {
  fs.watch(folder, { recursive: process.argv.includes('recursive') }, (event, changed) => { if (changed && changed.endsWith(name)) load(); });
} catch (e) {
  if (e.code !== 'ERR_FEATURE_UNAVAILABLE_ON_PLATFORM') throw e;
  console.log('unsupported'); // before node 20
}
load();
