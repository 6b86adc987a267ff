// A tunnel for as long as this program runs, however it ends: node program.mjs [port]

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const tunnel = spawn('tunnel', ['-ij', process.argv[2] ?? '8080']);
tunnel.on('error', () => { console.error('tunnel is not installed'); process.exit(127); });
let said = '';
tunnel.stderr.on('data', (text) => { said = (said + text).slice(-4096); });
const ended = once(tunnel, 'close');
const first = await Promise.race([once(createInterface(tunnel.stdout), 'line'), ended]);

if (typeof first[0] !== 'string') {
	console.error(`no tunnel, status ${tunnel.exitCode}: ${said.trim().split('\n').pop()}`);
	process.exit(tunnel.exitCode ?? 1);
}
const { url } = JSON.parse(first[0]);

console.log(url);
await once(process.stdin.resume(), 'end'); // what the program does

tunnel.stdin.end();
await ended;
