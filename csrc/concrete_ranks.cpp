#include "concrete_ranks.hpp"

#include <algorithm>
#include <exception>

#include "wire.hpp"

namespace tilesmith::concrete {
namespace {

constexpr std::size_t kItemsPerWorker = 30;

void write(Writer &writer, const Found &found) {
    writer.put_all(found.nodes);
    writer.put_all(found.blocks);
    writer.put_all(found.outputs);
}

Found read_found(Reader &reader) {
    Found found;
    found.nodes = reader.get_all<Step>();
    found.blocks = reader.get_all<Block>();
    found.outputs = reader.get_all<std::uint8_t>();
    return found;
}

void write(Writer &writer, const Expressions &expressions) {
    writer.put<std::uint64_t>(expressions.size());
    for (Expression e = 0; e < expressions.size(); ++e) {
        writer.put(expressions.kind(e));
        writer.put(expressions.a(e));
        writer.put(expressions.b(e));
    }
}

// Of expressions that there are none of yet: they get the numbers that they had.
void read(Reader &reader, Expressions &expressions) {
    for (auto left = reader.get<std::uint64_t>(); left > 0; --left) {
        const auto kind = reader.get<Expressed>();
        const auto a = reader.get<std::uint32_t>();
        expressions.make(kind, a, reader.get<std::uint32_t>());
    }
}

} // namespace

Ranked::Ranked(const Roots &roots, const Asking &asking, SharedAnswers &shared, Control &control, const Team &team)
    : roots_(roots), asking_(asking), shared_(shared), control_(control), team_(team),
      run_(std::max<std::size_t>(1, roots.size() / (kItemsPerWorker * static_cast<std::size_t>(team.threads * team.ranks)))),
      pool_(0, &control) {}

std::vector<Counts> Ranked::run() {
    const auto threads = static_cast<std::size_t>(team_.threads);
    std::vector<Counts> counts(threads);
    std::vector<std::exception_ptr> faults(threads);
#pragma omp parallel for num_threads(team_.threads) schedule(static, 1)
    for (std::size_t me = 0; me < threads; ++me) {
        const double cpu = cpu_seconds();
        pool_.enter();
        Worker worker(roots_, asking_, &shared_, control_, team_.timeline, &pool_);
        while (std::optional<Task> task = pool_.take(worker.track())) {
            // A fault must not end the loop: others may wait for what this worker would leave.
            try {
                if (control_.stopped()) continue;
                const std::size_t root = task->root;
                std::vector<Found> made = worker.search(std::move(*task), team_.order, team_.frontier_bytes / threads);
                if (control_.poll()) continue;
                const std::lock_guard lock(mutex_);
                for (Found &graph : made) found_.emplace_back(root, std::move(graph));
            } catch (...) { // carried over to the thread that waits
                faults[me] = std::current_exception();
                control_.interrupt();
            }
        }
        worker.track().to(Activity::waiting);
        counts[me] = worker.counted();
        counts[me].cpu_s = cpu_seconds() - cpu;
    }
    for (const std::exception_ptr &fault : faults)
        if (fault) std::rethrow_exception(fault);
    return counts;
}

void Ranked::offer(std::size_t item) {
    for (std::size_t root = item * run_; root < std::min((item + 1) * run_, roots_.size()); ++root)
        pool_.leave({.root = root, .open = {}, .depth = {-1, 0}});
}

std::string Ranked::give() {
    const std::optional<Task> task = pool_.lend();
    if (!task) return {};
    Writer writer;
    writer.put<std::uint64_t>(task->root);
    writer.put(task->depth.first);
    writer.put(task->depth.second);
    writer.put(task->open.has_value());
    if (task->open) {
        task->open->write(writer);
        write(writer, task->expressions);
    }
    return writer.take();
}

void Ranked::receive(std::string_view given) {
    Reader reader(given);
    Task task;
    task.root = reader.get<std::uint64_t>();
    task.depth.first = reader.get<int>();
    task.depth.second = reader.get<int>();
    if (reader.get<bool>()) {
        task.open = Frontier::read(reader);
        task.expressions = Expressions(roots_.space().problem().names);
        read(reader, task.expressions);
    }
    pool_.leave(std::move(task));
}

std::string Ranked::found(bool) {
    const std::lock_guard lock(mutex_);
    Writer writer;
    for (const auto &[root, graph] : found_) {
        writer.put<std::uint64_t>(root);
        write(writer, graph);
    }
    found_.clear();
    return writer.take();
}

void Ranked::tell(std::string_view found) {
    Reader reader(found);
    while (reader.more()) {
        const auto root = reader.get<std::uint64_t>();
        told_.emplace_back(root, read_found(reader));
    }
}

} // namespace tilesmith::concrete
