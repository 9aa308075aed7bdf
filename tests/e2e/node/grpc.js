// A gRPC client in Node.js, as a service of another team would write it. Prints one JSON object.
// usage: node grpc.js ADDRESS PROTO_DIR MODEL
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, protoDir, model] = process.argv.slice(2);
const definition = loader.loadSync('polyroute/v1/inference.proto', {
  includeDirs: [protoDir], keepCase: true, enums: String, longs: Number, oneofs: true,
});
const { InferenceService } = grpc.loadPackageDefinition(definition).polyroute.v1;
const client = new InferenceService(address, grpc.credentials.createInsecure());
const question = { role: 'user', content: 'What is the capital of France?' };
const request = { model, messages: { messages: [question] }, temperature: 0, max_tokens: 16 };
const deadline = () => ({ deadline: Date.now() + 120000 });

const unary = (req) => new Promise((resolve, reject) =>
  client.Generate(req, deadline(), (error, answer) => (error ? reject(error) : resolve(answer))));

const stream = (req) => new Promise((resolve, reject) => {
  const events = [];
  const call = client.StreamGenerate(req, deadline());
  call.on('data', (event) => events.push(event));
  call.on('error', reject);
  call.on('end', () => resolve(events));
});

const cancelled = () => new Promise((resolve) => {
  const call = client.StreamGenerate({ ...request, max_tokens: 2000, cache: { mode: 'CACHE_MODE_BYPASS' } }, deadline());
  call.on('data', () => call.cancel());
  call.on('error', (error) => resolve(error.code));
  call.on('end', () => resolve(0));
});

(async () => {
  const answer = await unary(request);
  const events = await stream(request);
  const failure = await unary({ ...request, model: 'no-such-model' }).catch((error) => error);
  console.log(JSON.stringify({
    text: answer.text,
    finish: answer.finish_reason,
    route: answer.route,
    kinds: events.map((e) => e.event),
    streamed: events.filter((e) => e.delta).map((e) => e.delta.text).join(''),
    sequence: events.map((e) => e.sequence),
    failure: { code: failure.code, details: failure.details },
    cancelled: await cancelled(),
  }));
  client.close();
})().catch((error) => { console.error(error); process.exit(1); });
