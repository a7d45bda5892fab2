// SPDX-License-Identifier: GPL-3.0-or-later
// A job type for Flamenco 3: an animatic, one task for each gap, and one that puts the clips into the timeline.
// Copy it into the folder `scripts` beside flamenco-manager; README.md beside this file says the rest.

const JOB_TYPE = {
    label: "Fill an Animatic",
    description: "In-betweens for each gap of a timeline",
    settings: [
        { key: "board", type: "string", subtype: "file_path", required: true,
          description: "The timeline, on storage that all workers see" },
        { key: "jobs", type: "string", subtype: "dir_path", required: true,
          description: "The folder that `animatic_jobs.py save` has filled" },
        { key: "names", type: "string", required: true,
          description: "The names that it has printed, by commas: one task each" },
        { key: "filled", type: "string", subtype: "file_path", required: true,
          description: "The timeline that is to be written" },
        { key: "options", type: "string", default: "",
          description: "What `save` was given besides, as in: --engine draft --hold 8" },
        { key: "sfserver", type: "string", default: "sfserver", visible: "submission",
          description: "The program, as workers find it" },
        { key: "python", type: "string", default: "python3", visible: "submission",
          description: "The Python that has sfserver installed" },
        { key: "script", type: "string", subtype: "file_path", default: "animatic_jobs.py", visible: "submission",
          description: "Where animatic_jobs.py lies" },
    ],
};

// Words by spaces; quotes hold words together.
function words(text) {
    return (text.match(/"[^"]*"|\S+/g) || []).map(word => word.replace(/^"|"$/g, ""));
}

function exec(name, exe, args) {
    const task = author.Task(name, "misc");
    task.addCommand(author.Command("exec", { exe: exe, args: args }));
    return task;
}

function compileJob(job) {
    const settings = job.settings;
    const names = settings.names.split(",").map(name => name.trim()).filter(name => name);
    if (!names.length) {
        throw "names: empty; animatic_jobs.py save prints them";
    }
    const strange = names.find(name => !/^[A-Za-z0-9_-]+$/.test(name));
    if (strange) {
        throw `names: ${strange} is no name that animatic_jobs.py save prints`;
    }
    const put = exec("put into the timeline", settings.python,
        [settings.script, "put", settings.board, settings.jobs, "--out", settings.filled, ...words(settings.options)]);
    for (const name of names) {
        const fill = exec(name, settings.sfserver, ["run", path.join(settings.jobs, name)]);
        job.addTask(fill);
        put.addDependency(fill);
    }
    job.addTask(put);
}
