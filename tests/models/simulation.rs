//! No rule is broken here, and tasks are the model checker's.

pub(crate) use embosser::simulation::Mutation;

pub(crate) fn is_broken(_: Mutation) -> bool {
    false
}

pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(shuttle::future::spawn(task));
}
