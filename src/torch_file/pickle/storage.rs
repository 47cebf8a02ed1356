//! Storages, which a pickle mentions by persistent identifiers; their bytes are elsewhere in the file.

use super::super::error::Error;
use super::globals::Global;
use super::machine::Machine;
use super::nodes::{Item, Node, StorageClaim};
use super::reduce::count;

impl<'a> Machine<'a, '_> {
    /// A storage from its persistent identifier:
    /// ("storage", class, key, location, elements), in old files with (view key, first, elements) or None behind.
    pub(super) fn storage(&mut self, id: Item) -> Result<Node<'a>, Error> {
        let wrong = || Error::damaged("a storage is described in a way that torch.save does not use");
        let parts = self.arguments(id)?;
        let [tag, class, key, _location, elements, view @ ..] = parts.as_slice() else { return Err(wrong()) };
        match (self.text(*tag), self.callable(*class)?) {
            (Some("storage"), (Global::TypedStorage(dtype), _)) => {
                let key = match (self.text(*key), key) {
                    (Some(key), _) => key.to_owned(),
                    (None, Item::Int(key)) => key.to_string(),
                    _ => return Err(wrong()),
                };
                let claim = StorageClaim { key, dtype, elements: count(*elements)? };
                claim.bytes()?;
                let (first, end) = match view {
                    [] | [Item::None] => (0, claim.elements),
                    [view] => match self.arguments(*view)?.as_slice() {
                        [_key, first, length] => {
                            let (first, length) = (count(*first)?, count(*length)?);
                            let end = first.checked_add(length).filter(|&end| end <= claim.elements);
                            (first, end.ok_or_else(|| Error::damaged("a view reaches past its storage"))?)
                        }
                        _ => return Err(wrong()),
                    },
                    _ => return Err(wrong()),
                };
                let index = self.claim(claim)?;
                Ok(Node::Storage { index, dtype, first, end })
            }
            _ => Err(wrong()),
        }
    }

    fn claim(&mut self, claim: StorageClaim) -> Result<usize, Error> {
        if let Some(&index) = self.storage_index.get(&claim.key) {
            let known = &self.storages[index];
            if *known != claim {
                return Err(Error::damaged(format!("storage {} is described in two ways", claim.key)));
            }
            return Ok(index);
        }
        self.budget.take((size_of::<StorageClaim>() + 2 * claim.key.len()) as u64)?;
        let index = self.storages.len();
        self.storage_index.insert(claim.key.clone(), index);
        self.storages.push(claim);
        Ok(index)
    }
}
