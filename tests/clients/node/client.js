// Visits 127.0.0.1:PORT with Node.js, each time with the newest session.
//
// Usage: node client.js tls|https PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. `tls` keeps the session by hand, as the
// manual of the tls module says; `https` leaves that to an Agent. Prints the answers and the client's own word.
'use strict';
const fs = require('fs');
const https = require('https');
const tls = require('tls');

const [module_, port, version, visits, ca, cert, key] = process.argv.slice(2);
const options = {
    host: '127.0.0.1', port: Number(port), servername: 'localhost', ca: fs.readFileSync(ca),
    minVersion: version, maxVersion: version,
};
if (cert) {
    options.cert = fs.readFileSync(cert);
    options.key = fs.readFileSync(key);
}

function report(answer, word) {
    console.log(answer.trim());
    console.log(word);
}

// To be asked while the connection stands.
function wordOf(socket) {
    return `client ${socket.getProtocol()} resumed ${Number(socket.isSessionReused())}`;
}

let session;

function overTls() {
    return new Promise((resolve, reject) => {
        let answer = '', word;
        const socket = tls.connect({ ...options, session }, () => {
            word = wordOf(socket);
            socket.write('GET / HTTP/1.0\r\n\r\n');
        });
        socket.on('session', (newest) => { session = newest; });
        socket.on('data', (part) => { answer += part; });
        socket.on('end', () => { report(answer, word); });
        socket.on('close', resolve);
        socket.on('error', reject);
    });
}

const agent = new https.Agent({ keepAlive: false });

function overHttps() {
    return new Promise((resolve, reject) => {
        const request = https.get({ ...options, agent, headers: { Host: 'localhost' } }, (response) => {
            const word = wordOf(response.socket);
            let answer = '';
            response.on('data', (part) => { answer += part; });
            response.on('end', () => { report(answer, word); });
            request.socket.on('close', resolve);
        });
        request.on('error', reject);
    });
}

(async () => {
    for (let i = 0; i < Number(visits); i++)
        await (module_ === 'tls' ? overTls() : overHttps());
})();
