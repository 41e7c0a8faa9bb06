// The concrete space searched by threads that share memory.

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>

#include "concrete.hpp"

namespace tilesmith::concrete {
namespace {

// A graph in numbers that order it among those of its root.
std::vector<std::int32_t> place_of(const Found &found) {
    std::vector<std::int32_t> place;
    const auto step = [&](const Step &s) { place.insert(place.end(), {static_cast<std::int32_t>(s.kind), s.arg, s.a, s.b}); };
    std::ranges::for_each(found.nodes, step);
    for (const Block &block : found.blocks) {
        const Setting &setting = block.setting;
        place.insert(place.end(), setting.grid.begin(), setting.grid.end());
        place.push_back(setting.loop);
        for (std::size_t i = 0; i < block.loads; ++i) {
            place.push_back(block.sources[i]);
            place.insert(place.end(), setting.imaps[i].begin(), setting.imaps[i].end());
            place.push_back(setting.fmaps[i]);
        }
        std::for_each_n(block.body.begin(), block.steps, step);
        place.insert(place.end(), block.stored.begin(), block.stored.begin() + block.stores);
        place.insert(place.end(), block.omap.begin(), block.omap.end());
    }
    place.insert(place.end(), found.outputs.begin(), found.outputs.end());
    return place;
}

} // namespace

std::vector<std::pair<std::size_t, Found>> ordered(std::vector<std::vector<std::pair<std::size_t, Found>>> each) {
    using Placed = std::tuple<std::size_t, std::vector<std::int32_t>, Found *>;
    std::vector<Placed> placed;
    for (auto &found : each)
        for (auto &[root, graph] : found) placed.emplace_back(root, place_of(graph), &graph);
    std::ranges::sort(placed, [](const Placed &a, const Placed &b) {
        return std::tie(std::get<0>(a), std::get<1>(a)) < std::tie(std::get<0>(b), std::get<1>(b));
    });
    std::vector<std::pair<std::size_t, Found>> all;
    for (auto &[root, place, graph] : placed) all.emplace_back(root, std::move(*graph));
    return all;
}

void Pool::enter() {
    const std::scoped_lock lock(mutex_);
    ++working_;
}

void Pool::leave(Task task) {
    {
        const std::scoped_lock lock(mutex_);
        left_.push_back(std::move(task));
        count();
    }
    changed_.notify_one();
}

std::optional<Task> Pool::take(Track &track) {
    if (ticket_.load(std::memory_order_relaxed) < roots_)
        if (const std::size_t root = ticket_.fetch_add(1); root < roots_) return Task{.root = root, .open = {}, .depth = {}};
    track.to(Activity::waiting);
    std::unique_lock lock(mutex_);
    --working_, ++idle_;
    count();
    if (!working_) changed_.notify_all();
    const auto over = [&] { return !left_.empty() || (!working_ && !fed_); };
    // Where others feed it, nobody here may look at the clock.
    while (!over() && !(fed_ && fed_->poll())) changed_.wait_for(lock, std::chrono::milliseconds(20));
    --idle_;
    if (left_.empty()) {
        count();
        return {};
    }
    ++working_;
    track.to(Activity::stealing);
    Task task = shallowest();
    count();
    return task;
}

// It has most below it.
Task Pool::shallowest() {
    const auto best = std::ranges::min_element(left_, {}, &Task::depth);
    Task task = std::move(*best);
    left_.erase(best);
    return task;
}

std::optional<Task> Pool::lend() {
    const std::scoped_lock lock(mutex_);
    std::optional<Task> task;
    if (left_.size() > idle_) task = shallowest();
    abroad_ = task ? 0 : 1;
    count();
    return task;
}

void Pool::close() {
    const std::scoped_lock lock(mutex_);
    fed_ = nullptr;
    changed_.notify_all();
}

std::size_t Pool::size() {
    const std::scoped_lock lock(mutex_);
    return left_.size();
}

bool Pool::idle() {
    const std::scoped_lock lock(mutex_);
    return !working_ && left_.empty();
}

Share share_out(const Roots &roots, const Asking &asking, SharedAnswers &shared, Control &control, const Team &team) {
    const auto threads = static_cast<std::size_t>(team.threads);
    const bool dealt = team.sharing == Sharing::dealt;
    Pool pool(roots.size());
    std::vector<std::unique_ptr<Worker>> workers;
    for (std::size_t i = 0; i < threads; ++i)
        workers.push_back(std::make_unique<Worker>(roots, asking, &shared, control, team.timeline, dealt ? nullptr : &pool));
    std::atomic<std::uint64_t> count{roots.predefined().size()};
    std::vector<std::vector<std::pair<std::size_t, Found>>> found(threads);
    std::vector<std::exception_ptr> faults(threads);
    std::vector<double> cpu_s(threads);

    const auto work = [&](std::size_t me) {
        Worker &worker = *workers[me];
        const double cpu = cpu_seconds();
        std::size_t mine = me;
        pool.enter();
        const auto next = [&]() -> std::optional<Task> {
            if (!dealt) return pool.take(worker.track());
            const std::size_t root = mine;
            mine += threads;
            if (root >= roots.size() || control.stopped()) return {};
            return Task{.root = root, .open = {}, .depth = {}};
        };
        while (std::optional<Task> task = next()) {
            // A fault must not end the loop: others may wait for what this worker would leave.
            try {
                if (control.stopped()) continue;
                const std::size_t root = task->root;
                std::vector<Found> made = worker.search(std::move(*task), team.order, team.frontier_bytes / threads);
                if (team.graphs && (count += made.size()) >= team.graphs) control.ask(Stop::graphs);
                for (Found &graph : made) found[me].emplace_back(root, std::move(graph));
                control.poll();
            } catch (...) { // carried over to the thread that waits
                faults[me] = std::current_exception();
                control.interrupt();
            }
        }
        worker.track().to(Activity::waiting);
        cpu_s[me] = cpu_seconds() - cpu;
    };

    if (dealt) {
        std::vector<std::thread> others;
        for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work, i);
        work(0);
        for (std::thread &other : others) other.join();
    } else {
        // A worker for each thread that there is: fewer than asked for do the same work.
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static, 1)
        for (std::size_t i = 0; i < threads; ++i) work(i);
    }
    for (const std::exception_ptr &fault : faults)
        if (fault) std::rethrow_exception(fault);

    Share share;
    for (std::size_t i = 0; i < threads; ++i) {
        share.counts.push_back(workers[i]->counted());
        share.counts.back().cpu_s = cpu_s[i];
    }
    share.found = ordered(std::move(found));
    return share;
}

} // namespace tilesmith::concrete
