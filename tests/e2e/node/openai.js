// The openai SDK for Node.js against the REST shim. Prints one JSON object.
// usage: node openai.js BASE_URL MODEL
const { OpenAI } = require('openai');

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0, timeout: 120000 });
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const request = { model, messages, temperature: 0, max_tokens: 16 };

(async () => {
  const models = (await client.models.list()).data.map((m) => m.id);
  const answer = await client.chat.completions.create(request);
  const parts = [];
  let usage = null;
  const stream = await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    if (chunk.choices.length) parts.push(chunk.choices[0].delta.content || '');
    usage = chunk.usage || usage;
  }
  const completion = await client.completions.create({ model, prompt: 'The capital of France is', temperature: 0, max_tokens: 4 });
  const failure = await client.chat.completions.create({ ...request, model: 'no-such-model' }).catch((error) => error);
  console.log(JSON.stringify({
    models,
    text: answer.choices[0].message.content,
    finish: answer.choices[0].finish_reason,
    streamed: parts.join(''),
    usage,
    completion: completion.choices[0].text,
    failure: { status: failure.status, code: failure.code, type: failure.type },
  }));
})().catch((error) => { console.error(error); process.exit(1); });
