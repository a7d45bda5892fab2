// `node compile.js SCRIPT SETTINGS`: what a job type for Flamenco makes of its settings, as JSON. The names that
// Flamenco's manager gives to a script are stubs here.
const { readFileSync } = require("fs");
const { runInNewContext } = require("vm");

const [script, settings] = process.argv.slice(2);
const tasks = [];
const world = {
    print: () => undefined,
    path: require("path").posix,
    author: {
        Task: (name, type) => ({
            name, type, commands: [], after: [],
            addCommand(command) { this.commands.push(command); },
            addDependency(task) { this.after.push(task.name); },
        }),
        Command: (name, parameters) => ({ name, parameters }),
    },
    job: { settings: JSON.parse(settings), addTask: task => tasks.push(task) },
};
try {
    runInNewContext(readFileSync(script, "utf-8") + "\ncompileJob(job); this.declared = JOB_TYPE;", world);
    console.log(JSON.stringify({ tasks, declared: world.declared }));
} catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
}
